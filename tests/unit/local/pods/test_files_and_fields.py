"""Environment, volumes and logs without processes."""

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulle.local.net.model import Mount
from tulle.local.pods.environment import (
    ConfigError,
    Lookup,
    expand,
    field_value,
    resolve,
    resource_value,
    service_variables,
)
from tulle.local.pods.logs import LINE_BYTES, ContainerLog, LogFile
from tulle.local.pods.loopback import app_variables, proxy_variables
from tulle.local.pods.notices import not_carried_out
from tulle.local.pods.spec import quantity
from tulle.local.pods.volumes import (
    Directory,
    File,
    Files,
    HostPath,
    VolumeError,
    content,
    mounts,
    write_files,
)

POD: dict[str, Any] = {
    "metadata": {"name": "p", "namespace": "d", "labels": {"a": "b"}, "annotations": {"x/y": 'say "hi"'}},
    "spec": {"nodeName": "tulle", "containers": [{"name": "c", "resources": {"limits": {"cpu": "1500m"}}}]},
    "status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "hostIP": "127.0.0.1"},
}
MAPS = {"m": {"k": b"v", "n": b"w"}}
LOOKUP = Lookup(POD, MAPS.get, {"s": {"k": b"\xff"}}.get, {"cpu": "4", "memory": "8Gi"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("$$(A)", "$(A)"),
        ("$(B)", "$(B)"),
        ("x$(A)y$(A)", "x1y1"),
        ("$A ${A}", "$A ${A}"),
        ("$$$(A)", "$1"),
        ("$(", "$("),
    ],
)
def test_expansion(text: str, expected: str) -> None:
    assert expand(text, {"A": "1"}) == expected


@given(st.text(alphabet="ab", max_size=8), st.text(max_size=20).filter(lambda t: "$" not in t))
def test_text_without_a_dollar_is_left_alone(name: str, text: str) -> None:
    assert expand(text, {name: "value"}) == text


def test_later_sources_win_and_missing_ones_are_named() -> None:
    container = {
        "name": "c",
        "envFrom": [
            {"configMapRef": {"name": "m"}, "prefix": "P_"},
            {"secretRef": {"name": "none", "optional": True}},
        ],
        "env": [
            {"name": "P_k", "value": "own"},
            {"name": "REF", "value": "$(P_n)-$(LATER)"},
            {"name": "LATER", "value": "l"},
        ],
    }
    env = resolve(container, LOOKUP, {"P_n": "weak", "SVC": "1"})
    assert env == {"P_n": "w", "SVC": "1", "P_k": "own", "REF": "w-$(LATER)", "LATER": "l"}
    for source, message in (
        ({"configMapKeyRef": {"name": "m", "key": "zz"}}, "couldn't find key zz in configmap d/m"),
        ({"secretKeyRef": {"name": "zz", "key": "k"}}, 'secret "zz" not found'),
        ({"fileKeyRef": {"path": "x"}}, "fileKeyRef is not carried out"),
    ):
        with pytest.raises(ConfigError, match=message):
            resolve({"name": "c", "env": [{"name": "A", "valueFrom": source}]}, LOOKUP, {})


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("metadata.name", "p"), ("metadata.labels['a']", "b"), ("metadata.annotations['x/y']", 'say "hi"'), ("metadata.labels['z']", ""),
        ("metadata.annotations", 'x/y="say \\"hi\\""'), ("spec.serviceAccountName", "default"), ("status.podIPs", "10.0.0.1"),
        ("spec.nodeName", "tulle"), ("status.hostIP", "127.0.0.1"),
    ],
)  # fmt: skip
def test_downward_fields(path: str, expected: str) -> None:
    assert field_value(path, POD) == expected


def test_resources_are_rounded_up_and_fall_back_to_the_node() -> None:
    container = POD["spec"]["containers"][0]
    assert resource_value({"resource": "limits.cpu"}, container, LOOKUP) == "2"
    assert resource_value({"resource": "limits.cpu", "divisor": "1m"}, container, LOOKUP) == "1500"
    assert resource_value({"resource": "limits.memory", "divisor": "1Gi"}, container, LOOKUP) == "8"
    assert resource_value({"resource": "requests.memory"}, container, LOOKUP) == "0"


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1), ("250m", 0.25), ("1Ki", 1024), ("2G", 2e9), ("1e3", 1000), (".5", 0.5)]
)
def test_quantities(text: str, value: float) -> None:
    assert quantity(text) == value


@pytest.mark.parametrize("text", ["", "x", "1Q", "1 m m"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"quantity|float"):
        quantity(text)


def test_service_variables_know_the_namespace_and_the_api() -> None:
    def service(namespace: str, name: str) -> dict[str, Any]:
        ports = [{"name": "web-ui", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]
        return {
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"clusterIP": "10.96.0.9", "ports": ports},
        }

    services = [service("d", "my-app"), service("other", "far"), service("default", "kubernetes")]
    env = service_variables(services, namespace="d", links=True)
    assert env["MY_APP_SERVICE_HOST"] == "10.96.0.9" and env["MY_APP_SERVICE_PORT_WEB_UI"] == "80"
    assert env["MY_APP_PORT_53_UDP"] == "udp://10.96.0.9:53" and env["MY_APP_PORT"] == "tcp://10.96.0.9:80"
    assert not any(name.startswith("FAR") for name in env)
    assert {name.split("_")[0] for name in service_variables(services, namespace="d", links=False)} == {
        "KUBERNETES"
    }


def test_what_each_kind_of_volume_holds() -> None:
    def held(**volume: Any) -> Any:
        return content({"name": "v", **volume}, LOOKUP, {})

    assert held(emptyDir={}) == Directory(None)
    assert held(emptyDir={"medium": "Memory", "sizeLimit": "1Mi"}) == Directory(2**20)
    assert held(hostPath={"path": "/x", "type": "File"}) == HostPath("/x", "File")
    assert held(
        configMap={"name": "m", "defaultMode": 0o400, "items": [{"key": "k", "path": "a/b"}]}
    ) == Files({"a/b": File(b"v", 0o400)})
    assert held(secret={"secretName": "s"}) == Files({"k": File(b"\xff", 0o644)})
    assert held(configMap={"name": "zz", "optional": True}) == Files({})
    labels = {"items": [{"path": "l", "mode": 0o600, "fieldRef": {"fieldPath": "metadata.labels"}}]}
    assert held(downwardAPI=labels) == Files({"l": File(b'a="b"', 0o600)})
    for volume, message in (
        ({"configMap": {"name": "zz"}}, 'configmap "zz" not found'),
        ({"secret": {"secretName": "s", "items": [{"key": "q", "path": "q"}]}}, "has no key q"),
        ({"csi": {"driver": "d"}}, "csi volumes need a cluster"),
    ):
        with pytest.raises(VolumeError, match=message):
            held(**volume)


def test_mounts_follow_sub_paths_and_never_leave_the_volume() -> None:
    def mounted(**mount: Any) -> list[Mount]:
        container = {"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/t", **mount}]}
        return mounts(container, {"v": Path("/state/v")}, frozenset(), {"POD": "p"})

    assert mounted() == [Mount("/state/v", "/t", False)]
    assert mounted(subPathExpr="$(POD)/x", readOnly=True) == [Mount("/state/v/p/x", "/t", True)]
    for path in ("../other", "/etc", "a/../../b"):
        with pytest.raises(VolumeError, match="leads out"):
            mounted(subPath=path)
    with pytest.raises(VolumeError, match="does not have"):
        mounted(name="w")


def test_files_change_all_at_once_and_old_ones_go(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    write_files(folder, {"a": File(b"1", 0o644), "deep/b": File(b"2", 0o400)}, "1")
    opened = (folder / "..data").resolve()
    assert (folder / "a").read_bytes() == b"1" and stat.S_IMODE(
        (folder / "deep" / "b").stat().st_mode
    ) == 0o400
    write_files(folder, {"a": File(b"3", 0o644)}, "2")
    assert (folder / "a").read_bytes() == b"3" and not (folder / "deep").exists() and not opened.exists()
    with pytest.raises(VolumeError):
        write_files(folder, {"../x": File(b"", 0o644)}, "3")
    assert not (tmp_path / "x").exists()


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def follow(log: LogFile, **wishes: Any) -> list[bytes]:
    full = {"follow": False, "tail": None, "since": None, "timestamps": False, **wishes}
    return [line async for line in log.lines(**full)]


async def test_lines_keep_their_streams_apart_and_long_ones_are_cut(tmp_path: Path) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    log = LogFile(tmp_path / "1.log", lambda: now)
    log.feed("stdout", b"one\nhal")
    log.feed("stderr", b"er\rr\n")
    log.feed("stdout", b"f\n" + b"x" * (LINE_BYTES + 5) + b"\n")
    log.feed("stdout", b"end")
    log.close()
    lines = await follow(log)
    assert lines[:3] == [b"one\n", b"er\rr\n", b"half\n"] and lines[-1] == b"end\n"
    assert b"".join(lines[3:-1]).replace(b"\n", b"") == b"x" * (LINE_BYTES + 5)
    assert (await follow(log, tail=1, timestamps=True)) == [b"2026-01-01T00:00:00.000000Z end\n"]
    assert await follow(log, since=now + timedelta(seconds=1)) == []
    assert await follow(log, tail=0) == [] and await follow(log, tail=99) == lines
    assert await follow(log, tail=2, since=now) == lines[-2:]


async def test_a_log_is_bounded_and_keeps_the_newest(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "1.log", lambda: datetime(2026, 1, 1, tzinfo=UTC), limit=1000)
    for number in range(200):
        log.feed("stdout", b"line %d\n" % number)
    log.close()
    assert size_of(tmp_path) <= 2000
    assert (await follow(log))[-1] == b"line 199\n"


async def test_only_the_last_two_starts_are_kept(tmp_path: Path) -> None:
    log = ContainerLog(tmp_path, lambda: datetime(2026, 1, 1, tzinfo=UTC))
    for attempt in (1, 2, 3):
        log.begin(attempt).feed("stdout", b"%d\n" % attempt)
    log.close()
    assert names_in(tmp_path) == ["2.log", "3.log"]
    assert log.previous is not None and await follow(log.previous) == [b"2\n"]


def test_what_an_app_and_its_sidecar_are_told_in_loopback_mode() -> None:
    container = {"name": "c", "ports": [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 80}]}
    env = app_variables(container, ip="127.1.0.5", meshed=True, app_port=lambda p: p + 18000)
    assert (env["HOST"], env["PORT"], env["grpc_proxy"]) == ("127.1.0.5", "18080", "http://127.1.0.5:4140")
    # grpc-go looks for HTTPS_PROXY alone.
    assert env["HTTPS_PROXY"] == env["https_proxy"] == env["HTTP_PROXY"] == env["http_proxy"]
    assert "http_proxy" not in app_variables(container, ip="127.1.0.5", meshed=False, app_port=int)
    told = proxy_variables(
        {
            "LINKERD2_PROXY_INBOUND_LISTEN_ADDR": "0.0.0.0:4143",
            "LINKERD2_PROXY_OUTBOUND_LISTEN_ADDRS": "127.0.0.1:4140,[::1]:4140",
            "LINKERD2_PROXY_POLICY_SVC_ADDR": "linkerd-policy.linkerd.svc.cluster.local.:8090",
            "LINKERD2_PROXY_IDENTITY_SVC_ADDR": "localhost.:8080",
        },
        ip="127.1.0.5",
        ports=[80, 8080],
        app_port=lambda p: p + 18000 if p < 1024 else p,
        plain_port=lambda p: p + 30000,
    )
    assert told == {
        "LINKERD2_PROXY_INBOUND_LISTEN_ADDR": "127.1.0.5:4143",
        "LINKERD2_PROXY_OUTBOUND_LISTEN_ADDRS": "127.1.0.5:4140",
        "LINKERD2_PROXY_POLICY_SVC_ADDR": "linkerd-policy.linkerd.svc.cluster.local.:38090",
        "LINKERD2_PROXY_IDENTITY_SVC_ADDR": "127.1.0.5:8080",
        "TULLE_PROXY_INBOUND_PORT_MAP": "80=18080",
        "TULLE_PROXY_INBOUND_EXTRA_LISTENERS": "127.1.0.5:30080=80,127.1.0.5:38080=8080",
    }


def test_what_is_not_carried_out_is_named_but_not_for_the_sidecar() -> None:
    container = {"name": "c", "resources": {"limits": {"cpu": 1}}, "securityContext": {"privileged": True}}
    sidecar = {**container, "name": "linkerd-proxy"}
    pod = {"spec": {"hostNetwork": True, "initContainers": [sidecar], "containers": [container]}}
    assert [text.rsplit(": ", 1)[0] for text in not_carried_out(pod, "netns")] == [
        "spec.hostNetwork",
        "containers c: resources.limits",
        "containers c: securityContext.privileged",
    ]
    told = list(not_carried_out({"spec": {"securityContext": {"runAsUser": 5}, "containers": []}}, "userns"))
    assert told == ["spec.securityContext.runAsUser: without root there is one user, you"]
