"""What `kubectl get` shows."""

from datetime import UTC, datetime
from typing import Any

import pytest

from tulle.local.api.registry import Registry
from tulle.local.api.tables import printer_for, table
from tulle.local.api.tables.custom import find
from tulle.local.api.tables.pods import pod_status
from tulle.local.api.tables.printing import duration, label_text

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-1, "0s"),
        (-10, "<invalid>"),
        (59, "59s"),
        (119, "119s"),
        (120, "2m"),
        (185, "3m5s"),
        (600, "10m"),
        (10799, "179m"),
        (10800, "3h"),
        (12000, "3h20m"),
        (28800, "8h"),
        (172799, "47h"),
        (172800, "2d"),
        (180000, "2d2h"),
        (691200, "8d"),
        (63072000, "2y"),
        (70000000, "2y80d"),
    ],
)
def test_ages_are_written_as_kubectl_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def pod(status: Any, *, inits: Any = (), deleting: bool = False, containers: int = 1) -> Any:
    metadata: dict[str, Any] = {"name": "p", "creationTimestamp": "2026-01-01T11:59:00Z"}
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-01T12:00:30Z"
    spec = {"containers": [{"name": f"c{n}"} for n in range(containers)], "initContainers": list(inits)}
    return {"metadata": metadata, "spec": spec, "status": status}


def running(name: str = "c0", *, ready: bool = True, restarts: int = 0, **more: Any) -> Any:
    return {"name": name, "ready": ready, "restartCount": restarts, "state": {"running": {}}, **more}


def waiting(reason: str, name: str = "c0", restarts: int = 0) -> Any:
    return {"name": name, "ready": False, "restartCount": restarts, "state": {"waiting": {"reason": reason}}}


def ended(code: int, name: str = "c0", reason: str = "") -> Any:
    return {
        "name": name,
        "ready": False,
        "restartCount": 0,
        "state": {"terminated": {"exitCode": code, "reason": reason}},
    }


SIDECAR = {"name": "side", "restartPolicy": "Always"}


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (pod({"phase": "Pending"}), (0, 1, "Pending", 0)),
        (
            pod({"phase": "Pending", "containerStatuses": [waiting("ContainerCreating")]}),
            (0, 1, "ContainerCreating", 0),
        ),
        (pod({"phase": "Running", "containerStatuses": [running()]}), (1, 1, "Running", 0)),
        (pod({"phase": "Running", "containerStatuses": [running(ready=False)]}), (0, 1, "Running", 0)),
        (
            pod({"phase": "Running", "containerStatuses": [waiting("CrashLoopBackOff", restarts=4)]}),
            (0, 1, "CrashLoopBackOff", 4),
        ),
        (
            pod({"phase": "Running", "containerStatuses": [running()]}, deleting=True),
            (1, 1, "Terminating", 0),
        ),
        (
            pod({"phase": "Succeeded", "containerStatuses": [ended(0, reason="Completed")]}),
            (0, 1, "Completed", 0),
        ),
        (pod({"phase": "Failed", "containerStatuses": [ended(1, reason="Error")]}), (0, 1, "Error", 0)),
        (pod({"phase": "Failed", "containerStatuses": [ended(3)]}), (0, 1, "ExitCode:3", 0)),
        (pod({"phase": "Failed", "reason": "Evicted"}), (0, 1, "Evicted", 0)),
        (
            pod(
                {"phase": "Pending", "initContainerStatuses": [waiting("PodInitializing", "i")]},
                inits=[{"name": "i"}],
            ),
            (0, 1, "Init:0/1", 0),
        ),
        (
            pod(
                {"phase": "Pending", "initContainerStatuses": [ended(2, "i", "Error")]}, inits=[{"name": "i"}]
            ),
            (0, 1, "Init:Error", 0),
        ),
        (
            pod(
                {
                    "phase": "Running",
                    "conditions": [{"type": "Initialized", "status": "True"}],
                    "initContainerStatuses": [running("side", started=True, restarts=2)],
                    "containerStatuses": [running()],
                },
                inits=[SIDECAR],
            ),
            (2, 2, "Running", 2),
        ),
        (
            pod(
                {"phase": "Pending", "initContainerStatuses": [running("side", ready=False, started=False)]},
                inits=[SIDECAR],
            ),
            (0, 2, "Init:0/1", 0),
        ),
    ],
)
def test_the_status_of_a_pod(shown: Any, expected: Any) -> None:
    assert pod_status(shown)[:4] == expected


def test_restarts_tell_when() -> None:
    last = {"lastState": {"terminated": {"finishedAt": "2026-01-01T11:58:00Z"}}}
    shown = pod({"phase": "Running", "containerStatuses": [running(restarts=3) | last]})
    printer = printer_for(Registry().find("", "pods"), None)
    assert printer.cells(shown, NOW)[3] == "3 (2m ago)"


@pytest.mark.parametrize("resource", list(Registry()), ids=lambda resource: resource.key)
def test_every_printer_prints_the_emptiest_object(resource: Any) -> None:
    least: Any = {
        "core_v1.Service": {"spec": {}},
        "core_v1.PodTemplate": {"template": {"spec": {"containers": []}}},
    }
    obj = {
        "kind": resource.kind,
        "metadata": {"name": "x", "namespace": "n"},
        **least.get(resource.schema.name, {}),
    }
    if resource.kind.endswith("Binding"):
        obj["roleRef"] = {"kind": "Role", "name": "r"}
    shown = table(printer_for(resource, None), [obj], NOW)
    assert len(shown["rows"][0]["cells"]) == len(shown["columnDefinitions"])


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".spec.size", ["small"]),
        (".spec.none", []),
        ('.status.conditions[?(@.type=="Ready")].status', ["True"]),
        (".spec.parts[0].name", ["a"]),
        (".spec.parts[-1].name", ["b"]),
        (".spec.parts[*].name", ["a", "b"]),
        (".spec.parts[9].name", []),
        (".metadata.labels['x.y/z']", ["v"]),
        (r".metadata.labels.x\.y/z", ["v"]),
    ],
)
def test_json_paths_of_columns(path: str, found: list[Any]) -> None:
    obj = {
        "metadata": {"labels": {"x.y/z": "v"}},
        "spec": {"size": "small", "parts": [{"name": "a"}, {"name": "b"}]},
        "status": {"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]},
    }
    assert find(path, obj) == found


def test_selectors_are_written_as_kubectl_does() -> None:
    assert label_text({"matchLabels": {"b": "2", "a": "1"}}) == "a=1,b=2"
    assert label_text({"app": "web"}) == "app=web"
    assert (
        label_text({"matchExpressions": [{"key": "a", "operator": "In", "values": ["y", "x"]}]})
        == "a in (x,y)"
    )
    assert label_text(None) == "<none>"
