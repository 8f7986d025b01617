"""Whatever is put in place of any part of an object, the API takes it or refuses it; it never breaks."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tulle.local.api import Api, ApiError
from tulle.local.api.objects import copy_json
from tulle.local.api.tables import printer_for, table

TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"a": "b"}},
    "spec": {
        "containers": [
            {
                "name": "main",
                "image": "nginx",
                "ports": [{"containerPort": 80, "name": "http"}],
                "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "resources": {"limits": {"cpu": "1"}},
                "readinessProbe": {"httpGet": {"port": "http"}},
                "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            }
        ],
        "volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}],
    },
}
SELECTED = {"selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE}
WEBHOOK = {
    "name": "a.b.c",
    "clientConfig": {"service": {"name": "s", "namespace": "n", "path": "/p"}, "caBundle": "YQ=="},
    "rules": [
        {"operations": ["CREATE"], "apiGroups": ["x.dev"], "apiVersions": ["v1"], "resources": ["nothing"]}
    ],
    "admissionReviewVersions": ["v1"],
    "sideEffects": "None",
    "objectSelector": {"matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}]},
}
COG = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "n": {"type": "integer", "default": 1},
                "l": {"type": "array", "items": {"type": "string"}},
            },
        }
    },
}
VERSION = {
    "name": "v1",
    "served": True,
    "storage": True,
    "schema": {"openAPIV3Schema": COG},
    "subresources": {
        "status": {},
        "scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"},
    },
    "additionalPrinterColumns": [{"name": "N", "type": "integer", "jsonPath": ".spec.n"}],
}
SAMPLES: list[tuple[str, str, Any]] = [
    ("pods", "", TEMPLATE),
    ("deployments", "apps", {"spec": {**SELECTED, "strategy": {"rollingUpdate": {"maxSurge": 1}}}}),
    ("statefulsets", "apps", {"spec": {**SELECTED, "serviceName": "s"}}),
    ("daemonsets", "apps", {"spec": SELECTED}),
    ("jobs", "batch", {"spec": {"template": {"spec": {**TEMPLATE["spec"], "restartPolicy": "Never"}}}}),
    ("cronjobs", "batch", {"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {"spec": {**TEMPLATE["spec"], "restartPolicy": "Never"}}}}}}),
    ("services", "", {"spec": {"type": "NodePort", "selector": {"a": "b"}, "ports": [{"port": 80, "nodePort": 30001}]}}),
    ("endpointslices", "discovery.k8s.io", {"addressType": "IPv4", "endpoints": [{"addresses": ["1.2.3.4"], "conditions": {"ready": True}}], "ports": [{"port": 80}]}),
    ("configmaps", "", {"data": {"a": "b"}, "binaryData": {"c": "YQ=="}}),
    ("secrets", "", {"data": {"a": "YQ=="}, "stringData": {"b": "c"}}),
    ("roles", "rbac.authorization.k8s.io", {"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}),
    ("rolebindings", "rbac.authorization.k8s.io", {"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}]}),
    ("mutatingwebhookconfigurations", "admissionregistration.k8s.io", {"webhooks": [WEBHOOK]}),
    ("customresourcedefinitions", "apiextensions.k8s.io", {"spec": {"group": "x.dev", "scope": "Namespaced", "names": {"plural": "cogs", "kind": "Cog"}, "versions": [VERSION]}}),
    ("cogs", "y.dev", {"spec": {"n": 2, "l": ["a"]}, "status": {"n": 1}}),
    ("events", "", {"involvedObject": {"kind": "Pod", "name": "p"}, "reason": "R", "source": {"component": "c"}, "count": 1}),
    ("events", "events.k8s.io", {"regarding": {"kind": "Pod", "name": "p"}, "reason": "R", "eventTime": "2026-01-01T00:00:00.000000Z"}),
    ("ingresses", "networking.k8s.io", {"spec": {"rules": [{"host": "a.b", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s"}}}]}}]}}),
    ("poddisruptionbudgets", "policy", {"spec": {"minAvailable": "50%", "selector": {"matchLabels": {"a": "b"}}}}),
    ("persistentvolumeclaims", "", {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
    ("leases", "coordination.k8s.io", {"spec": {"holderIdentity": "me", "leaseDurationSeconds": 15}}),
    ("horizontalpodautoscalers", "autoscaling", {"spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"}}}),
    ("nodes", "", {"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}, "status": {"addresses": [{"type": "InternalIP", "address": "1.2.3.4"}]}}),
    ("priorityclasses", "scheduling.k8s.io", {"value": 5}),
]  # fmt: skip
METADATA = {
    "name": "x",
    "labels": {"a": "b"},
    "annotations": {"c": "d"},
    "finalizers": ["a.b/c"],
    "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "o", "uid": "u", "controller": True}],
}
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every part of an object."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def replaced(obj: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return the object with another value in one place."""
    result = copy_json(obj)
    parent = result
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    return result


async def attempt(plural: str, group: str, obj: Any) -> None:
    api = Api()
    await api.create("namespaces", {"metadata": {"name": "default"}})
    names = {"plural": "cogs", "kind": "Cog"}
    spec = {"group": "y.dev", "scope": "Namespaced", "names": names, "versions": [VERSION]}
    definition = {"metadata": {"name": "cogs.y.dev"}, "spec": spec}
    await api.create("customresourcedefinitions", definition, group="apiextensions.k8s.io")
    resource = api.registry.find(group, plural)
    try:
        await api.create(plural, obj, group=group, namespace="default")
    except ApiError as error:
        assert 400 <= error.code < 500, error.message
        return
    for item in (await api.list(plural, group=group)).items:
        shown = table(printer_for(resource, None), [item], api.clock.now())
        assert len(shown["rows"][0]["cells"]) == len(shown["columnDefinitions"])


@pytest.mark.parametrize(
    ("plural", "group", "sample"), SAMPLES, ids=[f"{plural}.{group}" for plural, group, _ in SAMPLES]
)
def test_the_samples_themselves_are_taken(plural: str, group: str, sample: Any) -> None:
    name = "cogs.x.dev" if plural == "customresourcedefinitions" else "x"

    async def create() -> None:
        api = Api()
        await api.create("namespaces", {"metadata": {"name": "default"}})
        if plural == "cogs":
            return
        obj = {**copy_json(sample), "metadata": {**METADATA, "name": name}}
        await api.create(plural, obj, group=group, namespace="default")

    asyncio.run(create())


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_part_may_be_anything(data: st.DataObject) -> None:
    plural, group, sample = data.draw(st.sampled_from(SAMPLES))
    name = "cogs.x.dev" if plural == "customresourcedefinitions" else "x"
    obj = {**copy_json(sample), "metadata": {**METADATA, "name": name}}
    place = data.draw(st.sampled_from(list(places(obj))))
    asyncio.run(attempt(plural, group, replaced(obj, place, data.draw(values))))


async def attempt_change(plural: str, group: str, sample: Any, kind: str, place: Any, value: Any) -> None:
    api = Api()
    await api.create("namespaces", {"metadata": {"name": "default"}})
    name = "cogs.x.dev" if plural == "customresourcedefinitions" else "x"
    obj = {**copy_json(sample), "metadata": {**METADATA, "name": name}}
    made = await api.create(plural, obj, group=group, namespace="default")
    paths = list(places(made))
    path = paths[place % len(paths)]
    body: Any = replaced(made, path, value)
    if kind == "json":
        pointer = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
        body = [{"op": "replace", "path": pointer, "value": value}]
    namespace = made["metadata"].get("namespace")
    try:
        await api.patch(plural, name, body, group=group, namespace=namespace, kind=kind, force=True)  # type: ignore[arg-type]
    except ApiError as error:
        assert 400 <= error.code < 500, error.message


CHANGEABLE = [sample for sample in SAMPLES if sample[0] != "cogs"]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(CHANGEABLE),
    st.sampled_from(["json", "merge", "strategic", "apply"]),
    st.integers(0, 500),
    values,
)
def test_any_part_may_be_changed_to_anything(sample: Any, kind: str, place: int, value: Any) -> None:
    plural, group, obj = sample
    asyncio.run(attempt_change(plural, group, obj, kind, place, value))
