"""Writes: concurrency, ownership, life and death of objects, through lightkube and the official client."""

from typing import Any

import kubernetes as kubernetes_client
import pytest
from lightkube.core.exceptions import ApiError
from lightkube.models.apps_v1 import DeploymentSpec
from lightkube.models.core_v1 import Container, PodSpec, PodTemplateSpec
from lightkube.models.meta_v1 import LabelSelector, ObjectMeta, OwnerReference
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Namespace, Pod, Service
from lightkube.types import CascadeType, PatchType

from tests.conformance.clients import wait_until

kubernetes: Any = kubernetes_client

pytestmark = pytest.mark.conformance


def deployment(**spec: Any) -> Deployment:
    labels = {"app": "web"}
    template = PodTemplateSpec(
        metadata=ObjectMeta(labels=labels), spec=PodSpec(containers=[Container(name="main", image="nginx")])
    )
    return Deployment(
        metadata=ObjectMeta(name="web"),
        spec=DeploymentSpec(selector=LabelSelector(matchLabels=labels), template=template, **spec),
    )


def test_defaults_are_filled_in(light: Any) -> None:
    created = light.create(deployment())
    assert created.spec is not None and created.spec.strategy is not None
    assert (created.spec.replicas, created.spec.revisionHistoryLimit) == (1, 10)
    assert created.spec.strategy.rollingUpdate.maxSurge == "25%"
    pod = created.spec.template.spec
    assert (pod.restartPolicy, pod.dnsPolicy, pod.terminationGracePeriodSeconds) == (
        "Always",
        "ClusterFirst",
        30,
    )
    assert pod.containers[0].imagePullPolicy == "Always"
    assert created.metadata.uid and created.metadata.creationTimestamp and created.metadata.generation == 1


def test_an_old_version_conflicts(light: Any) -> None:
    first = light.create(ConfigMap(metadata=ObjectMeta(name="conf"), data={"n": "0"}))
    second = light.get(ConfigMap, "conf")
    first.data = {"n": "1"}
    light.replace(first)
    second.data = {"n": "2"}
    with pytest.raises(ApiError) as raised:
        light.replace(second)
    assert "the object has been modified; please apply your changes to the latest version" in str(
        raised.value
    )
    second.metadata.resourceVersion = None
    assert light.replace(second).data == {"n": "2"}


def test_a_write_that_changes_nothing_makes_no_new_version(light: Any) -> None:
    created = light.create(ConfigMap(metadata=ObjectMeta(name="conf"), data={"n": "0"}))
    patched = light.patch(ConfigMap, "conf", {"data": {"n": "0"}}, patch_type=PatchType.MERGE)
    assert patched.metadata.resourceVersion == created.metadata.resourceVersion


def test_generation_counts_changes_of_the_spec_only(light: Any) -> None:
    light.create(deployment(replicas=0))
    labelled = light.patch(
        Deployment, "web", {"metadata": {"labels": {"a": "b"}}}, patch_type=PatchType.MERGE
    )
    assert labelled.metadata.generation == 1
    scaled = light.patch(Deployment, "web", {"spec": {"minReadySeconds": 3}}, patch_type=PatchType.MERGE)
    assert scaled.metadata.generation == 2


def test_status_changes_only_through_its_door(light: Any, official: Any, namespace: str) -> None:
    light.create(
        Pod(metadata=ObjectMeta(name="one"), spec=PodSpec(containers=[Container(name="a", image="b")]))
    )
    ignored = light.patch(Pod, "one", {"status": {"reason": "Mine"}}, patch_type=PatchType.MERGE)
    assert ignored.status is None or ignored.status.reason is None
    core = kubernetes.client.CoreV1Api(official)
    changed = core.patch_namespaced_pod_status(
        "one", namespace, {"status": {"reason": "Mine"}, "metadata": {"labels": {"a": "b"}}}
    )
    assert changed.status.reason == "Mine"


def test_generated_names(light: Any) -> None:
    names = {
        light.create(ConfigMap(metadata=ObjectMeta(generateName="conf-"))).metadata.name for _ in range(5)
    }
    assert len(names) == 5
    assert all(name is not None and name.startswith("conf-") and len(name) == 10 for name in names)


def test_create_twice_says_already_exists(light: Any) -> None:
    light.create(ConfigMap(metadata=ObjectMeta(name="conf")))
    with pytest.raises(ApiError) as raised:
        light.create(ConfigMap(metadata=ObjectMeta(name="conf")))
    assert (raised.value.status.code, raised.value.status.reason) == (409, "AlreadyExists")
    assert raised.value.status.message == 'configmaps "conf" already exists'


def test_finalizers_hold_an_object(light: Any) -> None:
    hold = "conformance.tulle.dev/hold"
    light.create(ConfigMap(metadata=ObjectMeta(name="held", finalizers=[hold])))
    light.delete(ConfigMap, "held")
    held = light.get(ConfigMap, "held")
    assert held.metadata.deletionTimestamp is not None
    with pytest.raises(ApiError) as raised:
        more = {"metadata": {"finalizers": [hold, "conformance.tulle.dev/more"]}}
        light.patch(ConfigMap, "held", more, patch_type=PatchType.MERGE)
    assert "no new finalizers can be added if the object is being deleted" in str(raised.value)
    light.patch(ConfigMap, "held", {"metadata": {"finalizers": []}}, patch_type=PatchType.MERGE)
    with pytest.raises(ApiError) as raised:
        light.get(ConfigMap, "held")
    assert raised.value.status.code == 404


def _owned(light: Any, name: str, owner: Any) -> None:
    reference = OwnerReference(
        "v1", "ConfigMap", str(owner.metadata.name), str(owner.metadata.uid), blockOwnerDeletion=True
    )
    light.create(ConfigMap(metadata=ObjectMeta(name=name, ownerReferences=[reference])))


def _exists(light: Any, name: str) -> bool:
    return any(item.metadata.name == name for item in light.list(ConfigMap))


@pytest.mark.parametrize("cascade", [CascadeType.BACKGROUND, CascadeType.FOREGROUND])
def test_dependents_go_with_their_owner(light: Any, cascade: CascadeType) -> None:
    owner = light.create(ConfigMap(metadata=ObjectMeta(name="owner")))
    _owned(light, "owned", owner)
    light.delete(ConfigMap, "owner", cascade=cascade)
    wait_until(
        lambda: not _exists(light, "owned") and not _exists(light, "owner"), "owner and owned are gone"
    )


def test_orphans_stay(light: Any) -> None:
    owner = light.create(ConfigMap(metadata=ObjectMeta(name="owner")))
    _owned(light, "owned", owner)
    light.delete(ConfigMap, "owner", cascade=CascadeType.ORPHAN)
    wait_until(lambda: not _exists(light, "owner"), "the owner is gone")
    assert not light.get(ConfigMap, "owned").metadata.ownerReferences


def test_two_appliers_share_an_object(light: Any) -> None:
    mine = ConfigMap(metadata=ObjectMeta(name="shared"), data={"mine": "1"})
    theirs = ConfigMap(metadata=ObjectMeta(name="shared"), data={"theirs": "1"})
    light.apply(mine, field_manager="me")
    both = light.apply(theirs, field_manager="they")
    assert both.data == {"mine": "1", "theirs": "1"}
    managers = {(entry.manager, entry.operation) for entry in both.metadata.managedFields or []}
    assert managers == {("me", "Apply"), ("they", "Apply")}
    less = light.apply(ConfigMap(metadata=ObjectMeta(name="shared")), field_manager="me")
    assert less.data == {"theirs": "1"}, "what nobody owns any more is removed"


def test_appliers_conflict_over_a_value(light: Any) -> None:
    light.apply(ConfigMap(metadata=ObjectMeta(name="shared"), data={"a": "1"}), field_manager="me")
    other = ConfigMap(metadata=ObjectMeta(name="shared"), data={"a": "2"})
    with pytest.raises(ApiError) as raised:
        light.apply(other, field_manager="they")
    status: Any = raised.value.status
    cause = status.details.causes[0]
    assert (cause.reason, cause.field) == ("FieldManagerConflict", ".data.a")
    assert 'conflict with "me"' in str(cause.message)
    forced = light.apply(other, field_manager="they", force=True)
    assert forced.data == {"a": "2"}
    owners = [
        entry.manager for entry in forced.metadata.managedFields or [] if "f:data" in (entry.fieldsV1 or {})
    ]
    assert owners == ["they"], "who forces takes the field over"


def test_appliers_may_agree(light: Any) -> None:
    same = ConfigMap(metadata=ObjectMeta(name="shared"), data={"a": "1"})
    light.apply(same, field_manager="me")
    light.apply(same, field_manager="they")
    left = light.apply(ConfigMap(metadata=ObjectMeta(name="shared")), field_manager="me")
    assert left.data == {"a": "1"}, "the other one still owns it"


def test_an_update_takes_a_field_over(light: Any) -> None:
    light.apply(ConfigMap(metadata=ObjectMeta(name="shared"), data={"a": "1"}), field_manager="me")
    light.patch(ConfigMap, "shared", {"data": {"a": "2"}}, patch_type=PatchType.MERGE, field_manager="they")
    with pytest.raises(ApiError) as raised:
        light.apply(ConfigMap(metadata=ObjectMeta(name="shared"), data={"a": "1"}), field_manager="me")
    assert 'conflict with "they"' in str(raised.value)


def test_applied_list_entries_merge_by_key(light: Any) -> None:
    light.apply(deployment(replicas=0), field_manager="me")
    sidecar = {"name": "sidecar", "image": "busybox"}
    spec = {"selector": {"matchLabels": {"app": "web"}}, "template": {"spec": {"containers": [sidecar]}}}
    both = light.apply(
        Deployment.from_dict({"metadata": {"name": "web"}, "spec": spec}), field_manager="they"
    )
    assert both.spec is not None
    assert [container.name for container in both.spec.template.spec.containers] == ["main", "sidecar"]
    spec["template"] = {"spec": {"containers": []}}
    left = light.apply(deployment(replicas=0), field_manager="they", force=True)
    assert left.spec is not None
    assert [container.name for container in left.spec.template.spec.containers] == ["main"]


def test_the_kinds_of_patch(light: Any, official: Any, namespace: str) -> None:
    light.create(deployment(replicas=0))
    strategic = {
        "spec": {
            "template": {"spec": {"containers": [{"name": "main", "env": [{"name": "A", "value": "1"}]}]}}
        }
    }
    light.patch(Deployment, "web", strategic, patch_type=PatchType.STRATEGIC)
    more = {
        "spec": {
            "template": {"spec": {"containers": [{"name": "main", "env": [{"name": "B", "value": "2"}]}]}}
        }
    }
    patched = light.patch(Deployment, "web", more, patch_type=PatchType.STRATEGIC)
    assert patched.spec is not None
    main = patched.spec.template.spec.containers[0]
    assert {(variable.name, variable.value) for variable in main.env or []} == {("A", "1"), ("B", "2")}
    assert main.image == "nginx"
    operations = [
        {"op": "test", "path": "/spec/template/spec/containers/0/name", "value": "main"},
        {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "nginx:9"},
    ]
    assert (
        light.patch(Deployment, "web", operations, patch_type=PatchType.JSON)
        .spec.template.spec.containers[0]
        .image
        == "nginx:9"
    )
    with pytest.raises(ApiError) as raised:
        operations[0]["value"] = "other"
        light.patch(Deployment, "web", operations, patch_type=PatchType.JSON)
    assert raised.value.status.code == 422
    merged = kubernetes.client.AppsV1Api(official).patch_namespaced_deployment(
        "web", namespace, {"spec": {"paused": True}}
    )
    assert merged.spec.paused is True


def test_dry_run(light: Any, official: Any, namespace: str) -> None:
    core = kubernetes.client.CoreV1Api(official)
    made = core.create_namespaced_config_map(namespace, {"metadata": {"name": "dry"}}, dry_run="All")
    assert made.metadata.uid
    assert not _exists(light, "dry")


def test_services_get_addresses_and_keep_them(light: Any) -> None:
    service = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80, "name": "http"}]}}
    created = light.create(Service.from_dict(service))
    assert (
        created.spec is not None
        and created.spec.clusterIP
        and created.spec.clusterIPs == [created.spec.clusterIP]
    )
    assert (created.spec.ports[0].targetPort, created.spec.ports[0].protocol) == (80, "TCP")
    replaced = light.replace(Service.from_dict({**service, "metadata": {"name": "s", "labels": {"a": "b"}}}))
    assert replaced.spec is not None and replaced.spec.clusterIP == created.spec.clusterIP
    headless = light.create(
        Service.from_dict({"metadata": {"name": "h"}, "spec": {"clusterIP": "None", "selector": {"a": "b"}}})
    )
    assert headless.spec is not None and headless.spec.clusterIP == "None"


def test_nothing_is_created_in_a_namespace_that_goes(light: Any, cluster: Any) -> None:
    name = f"{light.namespace}-going"
    light.create(Namespace(metadata=ObjectMeta(name=name)))
    light.create(
        ConfigMap(
            metadata=ObjectMeta(name="held", namespace=name, finalizers=["conformance.tulle.dev/hold"])
        ),
        namespace=name,
    )
    light.delete(Namespace, name)
    with pytest.raises(ApiError) as raised:
        light.create(ConfigMap(metadata=ObjectMeta(name="late")), namespace=name)
    assert raised.value.status.code == 403
    assert "because it is being terminated" in str(raised.value)
    light.patch(
        ConfigMap, "held", {"metadata": {"finalizers": []}}, namespace=name, patch_type=PatchType.MERGE
    )
    wait_until(
        lambda: name not in {item.metadata.name for item in light.list(Namespace)}, "the namespace is gone"
    )


def test_a_collection_is_deleted_by_selector(light: Any, official: Any, namespace: str) -> None:
    for name, tier in (("a", "x"), ("b", "x"), ("c", "y")):
        light.create(ConfigMap(metadata=ObjectMeta(name=name, labels={"tier": tier})))
    core = kubernetes.client.CoreV1Api(official)
    core.delete_collection_namespaced_config_map(namespace, label_selector="tier=x")
    assert {item.metadata.name for item in light.list(ConfigMap)} & {"a", "b", "c"} == {"c"}
