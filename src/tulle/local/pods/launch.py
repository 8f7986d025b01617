"""From a container to the process that stands for it: words, environment, directory, user, mounts. Pure.

What a container's environment holds, weakest first: the machine's few variables a program needs, what the network says,
Service variables, the image rule's variables, the manifest's.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from tulle.local.api.objects import Obj
from tulle.local.images import ImageMap, NoProgram, Program
from tulle.local.images import expand as expand_placeholders
from tulle.local.net.model import Mode, Mount, Target
from tulle.local.pods.environment import ConfigError, Lookup, expand, resolve
from tulle.local.pods.loopback import (
    PROXY_CONTAINER,
    PROXY_INIT,
    app_variables,
    container_ports,
    proxy_variables,
)
from tulle.local.pods.spec import ContainerSpec
from tulle.local.pods.volumes import API_MOUNT
from tulle.local.pods.volumes import mounts as volume_mounts

__all__ = ["INHERITED", "Launch", "NetworkFacts", "launch", "skips"]

INHERITED = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "VIRTUAL_ENV",
    "LD_LIBRARY_PATH",
    "SSL_CERT_FILE",
)
"""Variables of the user's shell that a program on this machine needs to be found and to run at all."""


class NetworkFacts(Protocol):
    """What a launch asks of the network."""

    @property
    def mode(self) -> Mode: ...  # noqa: D102
    @property
    def transparent(self) -> bool: ...  # noqa: D102
    @property
    def sidecar_env(self) -> Mapping[str, str]: ...  # noqa: D102
    @property
    def api_address(self) -> Target: ...  # noqa: D102
    def app_port(self, port: int) -> int: ...  # noqa: D102
    def plain_port(self, port: int) -> int: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything `Network.spawn` needs but the descriptors; `because` says why just this program.

    `all_addresses` is what listening on all of them means, where pods share one network.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    uid: int | None
    gid: int | None
    mounts: Sequence[Mount]
    hosts: Sequence[str]
    because: str
    all_addresses: str | None = None


def skips(container: ContainerSpec, network: NetworkFacts) -> bool:
    """Tell whether a container has nothing to do here: packet-filter rules where there is nothing to capture."""
    return container.name == PROXY_INIT and not network.transparent


def launch(
    container: ContainerSpec,
    *,
    lookup: Lookup,
    ip: str,
    images: ImageMap,
    network: NetworkFacts,
    machine_env: Mapping[str, str],
    service_env: Mapping[str, str],
    volumes: Mapping[str, Path],
    file_volumes: frozenset[str],
    api_mount: Mount | None,
    last_words: Mount | None,
    directory: Path,
) -> Launch:
    """Return what to start for a container.

    `volumes` maps volumes to where they lie, `api_mount` is the automatic token's,
    `last_words` that of the termination message, `directory` is where a program
    starts that nobody says anything else about.

    Raises NoProgram, ConfigError or VolumeError; each text says what to do.
    """
    pod, raw = lookup.pod, container.raw
    program = images.program(raw)
    ports = [int(port["containerPort"]) for port in raw.get("ports") or ()]
    fill = partial(expand_placeholders, program, ip=ip, port=network.app_port(ports[0]) if ports else None)
    rule_env = program.env if network.transparent else {**program.env, **program.loopback_env}
    env = _base(pod, machine_env)
    env |= _network_variables(container, pod, ip, network, _api_access(raw, volumes, api_mount))
    env |= service_env
    env |= dict(zip(rule_env, fill(rule_env.values()), strict=True))
    env = resolve(raw, lookup, env)
    host, number = network.api_address
    env["KUBERNETES_SERVICE_HOST"], env["KUBERNETES_SERVICE_PORT"] = host, str(number)
    if _is_proxy(container):
        env = _sidecar_variables(env, pod, ip, network)
    mounts = volume_mounts(raw, volumes, file_volumes, env)
    # What the manifest mounts at the same place comes first.
    for extra in (api_mount, last_words):
        if extra is not None and not any(mount.target == extra.target for mount in mounts):
            mounts.append(extra)
    uid, gid = _user(pod, raw)
    return Launch(
        argv=_words(raw, fill(program.argv), program, env),
        env=env,
        cwd=_directory(raw, mounts, program.directory or directory),
        uid=uid,
        gid=gid,
        mounts=mounts,
        hosts=[
            f"{alias['ip']}\t{' '.join(alias.get('hostnames') or ())}"
            for alias in pod["spec"].get("hostAliases") or ()
        ],
        because=program.because,
        # The sidecar names the addresses it listens on.
        all_addresses=None if network.transparent or _is_proxy(container) else ip,
    )


def _base(pod: Obj, machine_env: Mapping[str, str]) -> dict[str, str]:
    env = {name: machine_env[name] for name in INHERITED if name in machine_env}
    env["HOSTNAME"] = pod["spec"].get("hostname") or pod["metadata"]["name"]
    env["PYTHONUNBUFFERED"] = "1"
    return env


def _is_proxy(container: ContainerSpec) -> bool:
    return container.name in (PROXY_CONTAINER, PROXY_INIT)


def _network_variables(
    container: ContainerSpec, pod: Obj, ip: str, network: NetworkFacts, access: str | None
) -> dict[str, str]:
    """Return what a program needs to know where nothing is captured and the API has no name."""
    if network.transparent:
        return {}
    env: dict[str, str] = {}
    if not _is_proxy(container):
        env |= app_variables(container.raw, ip=ip, meshed=_is_meshed(pod), app_port=network.app_port)
    if access is not None:
        env["KUBECONFIG"] = f"{access}/kubeconfig"
    return env


def _sidecar_variables(env: dict[str, str], pod: Obj, ip: str, network: NetworkFacts) -> dict[str, str]:
    """Return a sidecar's environment as the network wants it; nothing in the manifest outweighs it."""
    env = {**env, **network.sidecar_env}
    if network.transparent:
        return env
    return proxy_variables(
        env,
        ip=ip,
        ports=container_ports(pod),
        app_port=network.app_port,
        plain_port=network.plain_port,
    )


def _is_meshed(pod: Obj) -> bool:
    spec = pod["spec"]
    everyone = (*(spec.get("initContainers") or ()), *(spec.get("containers") or ()))
    return any(container["name"] == PROXY_CONTAINER for container in everyone)


def _api_access(raw: Obj, volumes: Mapping[str, Path], api_mount: Mount | None) -> str | None:
    """Return where the files of the automatic token lie, whoever wrote its volume into the pod."""
    for mount in raw.get("volumeMounts") or ():
        if mount["mountPath"].rstrip("/") == API_MOUNT and mount["name"] in volumes:
            return str(volumes[mount["name"]])
    return None if api_mount is None else api_mount.source


def _words(raw: Obj, filled: Sequence[str], program: Program, env: Mapping[str, str]) -> tuple[str, ...]:
    words = tuple(expand(word, env) for word in filled)
    if not words or not words[0]:
        raise NoProgram(f"container {raw['name']}: its command is empty")
    # A program beside the tulle.toml that names it.
    if program.directory is not None and "/" in words[0] and not os.path.isabs(words[0]):
        return str(program.directory / words[0]), *words[1:]
    return words


def _directory(raw: Obj, mounts: Sequence[Mount], otherwise: Path) -> str:
    wanted = raw.get("workingDir")
    if not wanted:
        return str(otherwise)
    mounted = any(wanted == m.target or wanted.startswith(m.target.rstrip("/") + "/") for m in mounts)
    if mounted or os.path.isdir(wanted):
        return str(wanted)
    raise ConfigError(f"workingDir {wanted} is neither a directory of this machine nor below a volumeMount")


def _user(pod: Obj, raw: Obj) -> tuple[int | None, int | None]:
    whole, own = pod["spec"].get("securityContext") or {}, raw.get("securityContext") or {}
    uid, gid = own.get("runAsUser", whole.get("runAsUser")), own.get("runAsGroup", whole.get("runAsGroup"))
    return (None if uid is None else int(uid)), (None if gid is None else int(gid))
