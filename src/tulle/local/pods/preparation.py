"""Gives a pod its place: address, volumes, tokens; keeps files fresh while it lives; takes all back at the end."""

import asyncio
import os
import shutil
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from tulle.local.api.objects import Obj
from tulle.local.controllers.cluster import CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS, SERVICES
from tulle.local.net import kernel
from tulle.local.net.model import Mount, PodKey, PodNetwork
from tulle.local.pods.environment import Lookup, service_variables
from tulle.local.pods.launch import Launch, launch
from tulle.local.pods.ports import Surroundings
from tulle.local.pods.spec import ContainerSpec, PodSpec
from tulle.local.pods.termination import DEFAULT_PATH
from tulle.local.pods.volumes import (
    API_MOUNT,
    API_VOLUME,
    API_VOLUMES,
    Directory,
    File,
    Files,
    HostPath,
    TokenWish,
    VolumeError,
    api_access,
    config_map_data,
    content,
    secret_data,
    token_wishes,
    write_files,
)

__all__ = ["Preparation"]

REFRESH_SHARE = 0.8
"""A token is renewed when this share of its life is over."""

REFRESH_LEAST_SECONDS = 1.0
REFRESH_MOST_SECONDS = 3600.0

HOST_PATH_KINDS = {"Directory": os.path.isdir, "File": os.path.isfile, "Socket": os.path.exists}


class Preparation:
    """One pod's address and volumes."""

    def __init__(self, spec: PodSpec, around: Surroundings) -> None:
        self.spec, self._around = spec, around
        self.directory = around.state / "pods" / (spec.uid or f"{spec.namespace}_{spec.name}")
        self.network: PodNetwork | None = None
        self._volumes: dict[str, Path] = {}
        self._files: dict[str, Mapping[str, File]] = {}
        self._raw: dict[str, Obj] = {}
        self._memory: list[Path] = []
        self._tokens: dict[TokenWish, str] = {}
        self._renew_at: datetime | None = None
        self._generation = 0

    async def prepare(self) -> str:
        """Make address and volumes; done already is not done again. Returns the pod's address.

        Raises NetworkError, VolumeError, or ApiError when a token is refused.
        """
        around = self._around
        if self.network is None:
            key = PodKey(self.spec.namespace, self.spec.name, self.spec.uid)
            self.network = await around.network.add_pod(key)
        pod = self.pod_now(self.spec.raw)
        volumes = list(pod["spec"].get("volumes") or ())
        accounts = around.stores[SERVICE_ACCOUNTS]
        account = accounts.get(self.spec.namespace, pod["spec"].get("serviceAccountName") or "default")
        if not any(str(volume["name"]).startswith(API_VOLUMES) for volume in volumes):
            access = api_access(pod, account)
            if access is not None:
                volumes.append(access)
        for volume in volumes:
            if volume["name"] not in self._volumes:
                self._raw[volume["name"]] = volume
                await self._fetch_tokens(volume)
                self._make(volume, self.lookup(self.spec.raw))
        return self.network.ip

    def pod_now(self, pod: Obj) -> Obj:
        """Return the Pod object with what is known before its status is published."""
        assert self.network is not None
        ip, host = self.network.ip, self._around.machine.address
        known = {"podIP": ip, "podIPs": [{"ip": ip}], "hostIP": host, "hostIPs": [{"ip": host}]}
        return {**pod, "status": {**(pod.get("status") or {}), **known}}

    def lookup(self, pod: Obj) -> Lookup:
        """Return what environment and files are made from."""
        stores, namespace = self._around.stores, self.spec.namespace
        return Lookup(
            pod=self.pod_now(pod),
            config_map=lambda name: config_map_data(stores[CONFIG_MAPS].get(namespace, name)),
            secret=lambda name: secret_data(stores[SECRETS].get(namespace, name)),
            allocatable=self._around.machine.allocatable,
        )

    def launch(self, container: ContainerSpec, pod: Obj) -> Launch:
        """Return what to start for a container, from the state of the world now.

        Raises NoProgram, ConfigError, VolumeError.
        """
        around = self._around
        assert self.network is not None
        links = pod["spec"].get("enableServiceLinks")
        api_mount = None
        if API_VOLUME in self._volumes:
            api_mount = Mount(str(self._volumes[API_VOLUME]), API_MOUNT, read_only=True)
        made = launch(
            container,
            lookup=self.lookup(pod),
            ip=self.network.ip,
            images=around.images,
            network=around.network,
            machine_env=around.machine.env,
            service_env=service_variables(
                around.stores[SERVICES], namespace=self.spec.namespace, links=links is not False
            ),
            volumes={name: path for name, path in self._volumes.items() if name != API_VOLUME},
            file_volumes=frozenset(self._files),
            api_mount=api_mount,
            last_words=self._last_words(container),
            directory=around.machine.directory,
        )
        for mount in made.mounts:
            source = Path(mount.source)
            if not source.exists() and source.is_relative_to(self.directory):
                source.mkdir(parents=True)  # a subPath that nobody has written yet
                source.chmod(0o777)
        return made

    def _last_words(self, container: ContainerSpec) -> Mount | None:
        """Make the file for a container's termination message.

        The default path lies in /dev, where a private file would hide the machine's devices: it is left out.
        """
        path = container.raw.get("terminationMessagePath") or DEFAULT_PATH
        if path == DEFAULT_PATH:
            return None
        file = self.directory / "termination" / container.name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
        file.chmod(0o666)
        return Mount(str(file), path)

    def seconds_to_refresh(self) -> float | None:
        """Return when `refresh` is due because a token grows old."""
        if self._renew_at is None:
            return None
        left = (self._renew_at - self._around.clock.now()).total_seconds()
        return min(max(left, REFRESH_LEAST_SECONDS), REFRESH_MOST_SECONDS)

    async def refresh(self, pod: Obj) -> None:
        """Bring files up to date with ConfigMaps, Secrets, the pod's labels and, when due, new tokens.

        Raises VolumeError or ApiError; what was there stays.
        """
        if self._renew_at is not None and self._around.clock.now() >= self._renew_at:
            self._renew_at = None
            for name in self._files:
                await self._fetch_tokens(self._raw[name])
        lookup = self.lookup(pod)
        for name, before in list(self._files.items()):
            held = content(self._raw[name], lookup, self._tokens)
            if isinstance(held, Files) and self._complete(name, held.files) != before:
                self._write(name, self._complete(name, held.files))

    async def release(self) -> None:
        """Take address and volumes back; what cannot be removed is left to the world's own end."""
        if self.network is not None:
            await self._around.network.remove_pod(self.network.key)
        while self._memory:
            kernel.umount_lazily(str(self._memory.pop()))
        await asyncio.to_thread(shutil.rmtree, self.directory, True)

    async def _fetch_tokens(self, volume: Obj) -> None:
        for wish in token_wishes(volume):
            audiences = [wish.audience] if wish.audience else []
            token = await self._around.tokens(self.spec.raw, audiences=audiences, seconds=wish.seconds)
            self._tokens[wish] = token.text
            now = self._around.clock.now()
            due = now + timedelta(seconds=(token.expires - now).total_seconds() * REFRESH_SHARE)
            self._renew_at = due if self._renew_at is None else min(self._renew_at, due)

    def _make(self, volume: Obj, lookup: Lookup) -> None:
        name = volume["name"]
        path = self.directory / "volumes" / name
        match content(volume, lookup, self._tokens):
            case Files(files):
                self._volumes[name] = path
                self._write(name, self._complete(name, files))
            case Directory(memory_bytes):
                path.mkdir(parents=True, exist_ok=True)
                if memory_bytes is not None:
                    self._mount_memory(path, memory_bytes)
                path.chmod(0o777)
                self._volumes[name] = path
            case HostPath(source, kind):
                self._volumes[name] = _host_path(name, Path(source), kind)

    def _complete(self, name: str, files: Mapping[str, File]) -> Mapping[str, File]:
        """Add to the automatic volume the kubeconfig that clients read where nothing can be mounted."""
        if not name.startswith(API_VOLUMES) or self._around.network.transparent:
            return files
        return {**files, "kubeconfig": File(self._kubeconfig(self._volumes[name]), 0o600)}

    def _kubeconfig(self, here: Path) -> bytes:
        host, port = self._around.network.api_address
        cluster = {"server": f"https://{host}:{port}", "certificate-authority": str(here / "ca.crt")}
        context = {"cluster": "tulle", "user": "pod", "namespace": self.spec.namespace}
        config: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tulle", "cluster": cluster}],
            "users": [{"name": "pod", "user": {"tokenFile": str(here / "token")}}],
            "contexts": [{"name": "pod", "context": context}],
            "current-context": "pod",
        }
        return yaml.safe_dump(config).encode()

    def _write(self, name: str, files: Mapping[str, File]) -> None:
        self._generation += 1
        write_files(self._volumes[name], files, str(self._generation))
        self._files[name] = files

    def _mount_memory(self, path: Path, size: int) -> None:
        """Put a tmpfs there; where that is not allowed the directory itself serves, readable by its owner alone."""
        if self._around.network.transparent:
            kernel.mount(
                "tmpfs", str(path), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, f"size={size},mode=0777"
            )
            self._memory.append(path)


def _host_path(name: str, path: Path, kind: str) -> Path:
    if kind == "DirectoryOrCreate":
        path.mkdir(parents=True, exist_ok=True)
    elif kind == "FileOrCreate" and not path.exists():
        path.touch()
    fits = HOST_PATH_KINDS.get(kind)
    if not path.exists() or (fits is not None and not fits(path)):
        raise VolumeError(
            f'volume "{name}": hostPath type check failed: {path} is not a {kind or "path of this machine"}'
        )
    return path
