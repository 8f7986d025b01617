"""The Api as controllers and the node agent use it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from tulle.local.api import Api, ApiError, commits
from tulle.local.api.disruptions import disruptions_allowed
from tulle.local.api.reads import WatchOptions
from tulle.local.api.services import Allocator
from tulle.local.api.store import Store
from tulle.local.api.subresources import evict
from tulle.local.api.targets import Target, WriteOptions


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    made = Api(history=50, bookmark_seconds=0.05)
    await made.seed()
    yield made


def pod(name: str = "one", **spec: Any) -> Any:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "a", "image": "b"}], **spec},
    }


def conf(name: str = "one", **data: str) -> Any:
    return {"metadata": {"name": name, "namespace": "default"}, "data": data}


async def refused(coming: Any) -> ApiError:
    with pytest.raises(ApiError) as raised:
        await coming
    return raised.value


async def test_a_new_cluster_holds_what_every_cluster_does(api: Api) -> None:
    names = {item["metadata"]["name"] for item in (await api.list("namespaces")).items}
    assert names == {"default", "kube-system", "kube-public", "kube-node-lease"}
    service = await api.get("services", "kubernetes", namespace="default")
    assert service["spec"]["clusterIP"] == "10.96.0.1"
    await api.create("namespaces", {"metadata": {"name": "mine"}})
    root = await api.get("configmaps", "kube-root-ca.crt", namespace="mine")
    assert root["data"]["ca.crt"].startswith("-----BEGIN CERTIFICATE-----")
    assert (await api.get("namespaces", "mine"))["metadata"]["labels"] == {
        "kubernetes.io/metadata.name": "mine"
    }


async def test_endpoints_of_the_api_are_published(api: Api) -> None:
    await api.publish(["10.0.0.1"], 6443)
    await api.publish(["10.0.0.2"], 6443)
    found = await api.get("endpointslices", "kubernetes", group="discovery.k8s.io", namespace="default")
    assert [endpoint["addresses"] for endpoint in found["endpoints"]] == [["10.0.0.2"]]


async def test_what_get_returns_is_the_callers_own(api: Api) -> None:
    await api.create("configmaps", conf(a="1"))
    mine = await api.get("configmaps", "one", namespace="default")
    mine["data"]["a"] = "changed"
    assert (await api.get("configmaps", "one", namespace="default"))["data"] == {"a": "1"}
    await api.update("configmaps", mine)
    assert (await api.get("configmaps", "one", namespace="default"))["data"] == {"a": "changed"}


async def test_a_watch_begins_with_what_there_is_and_goes_on(api: Api) -> None:
    await api.create("configmaps", conf("one"))
    async with aclosing(api.watch("configmaps", namespace="default")) as events:  # type: ignore[type-var]
        first = {(await anext(events)).object["metadata"]["name"] for _ in range(2)}
        assert first == {"kube-root-ca.crt", "one"}
        await api.create("configmaps", conf("two"))
        event = await anext(events)
        while event.type == "BOOKMARK":
            event = await anext(events)
        assert (event.type, event.object["metadata"]["name"]) == ("ADDED", "two")


async def test_a_bookmark_is_a_place_to_go_on_from(api: Api) -> None:
    start = (await api.list("configmaps")).resource_version
    await api.create("secrets", {"metadata": {"name": "s", "namespace": "default"}})
    async with aclosing(api.watch("configmaps", resource_version=start)) as events:  # type: ignore[type-var]
        mark = await anext(events)
    assert mark.type == "BOOKMARK"
    assert int(mark.resource_version) > int(start)
    await api.create("configmaps", conf("later"))
    async with aclosing(api.watch("configmaps", resource_version=mark.resource_version)) as events:  # type: ignore[type-var]
        assert (await anext(events)).object["metadata"]["name"] == "later"


async def test_no_change_slips_between_waking_and_reading(api: Api) -> None:
    seen: list[str] = []

    async def follow() -> None:
        async for event in api.watch("configmaps", namespace="default"):
            if event.type == "ADDED":
                seen.append(event.object["metadata"]["name"])
            if "last" in seen:
                return

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(follow())
        for number in range(40):
            await api.create("configmaps", conf(f"c{number}"))
            if number % 7 == 0:
                await asyncio.sleep(0)
        await api.create("configmaps", conf("last"))
    assert [name for name in seen if name.startswith("c")] == [f"c{number}" for number in range(40)]


async def test_who_is_too_slow_is_told(api: Api) -> None:
    start = (await api.list("configmaps")).resource_version
    for number in range(60):
        await api.create("configmaps", conf(f"c{number}"))
    with pytest.raises(ApiError) as raised:
        async for _ in api.watch("configmaps", resource_version=start):
            pass
    assert raised.value.code == 410


async def test_a_watch_ends_when_its_resource_does(api: Api) -> None:
    schema = {"openAPIV3Schema": {"type": "object"}}
    names = {"plural": "cogs", "kind": "Cog"}
    versions = [{"name": "v1", "served": True, "storage": True, "schema": schema}]
    crd = {
        "metadata": {"name": "cogs.x.dev"},
        "spec": {"group": "x.dev", "scope": "Cluster", "names": names, "versions": versions},
    }
    await api.create("customresourcedefinitions", crd, group="apiextensions.k8s.io")

    async def follow() -> None:
        async for _ in api.watch("cogs", group="x.dev", resource_version=str(api.store.revision)):
            pass

    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(refused(follow()))
        await asyncio.sleep(0)
        await api.delete("customresourcedefinitions", "cogs.x.dev", group="apiextensions.k8s.io")
    assert following.result().code == 410
    assert (await refused(api.list("cogs", group="x.dev"))).code == 404


async def test_a_pod_that_runs_ends_when_its_node_says_so(api: Api) -> None:
    await api.create("pods", pod(nodeName="here", terminationGracePeriodSeconds=7))
    await api.patch(
        "pods", "one", {"status": {"phase": "Running"}}, namespace="default", subresource="status"
    )
    leaving = await api.delete("pods", "one", namespace="default")
    assert leaving["metadata"]["deletionGracePeriodSeconds"] == 7
    again = await api.delete("pods", "one", namespace="default", grace_period=3)
    assert again["metadata"]["deletionGracePeriodSeconds"] == 3
    longer = await api.delete("pods", "one", namespace="default", grace_period=60)
    assert longer["metadata"]["deletionGracePeriodSeconds"] == 3, "a grace period only gets shorter"
    await api.patch("pods", "one", {"status": {"phase": "Failed"}}, namespace="default", subresource="status")
    await api.get("pods", "one", namespace="default")
    await api.delete("pods", "one", namespace="default", grace_period=0)
    assert (await refused(api.get("pods", "one", namespace="default"))).code == 404


async def test_a_pod_without_a_node_goes_at_once(api: Api) -> None:
    await api.create("pods", pod())
    await api.delete("pods", "one", namespace="default")
    assert (await refused(api.get("pods", "one", namespace="default"))).code == 404


async def test_a_pod_gets_its_account_and_token(api: Api) -> None:
    made = await api.create("pods", pod())
    assert made["spec"]["serviceAccountName"] == "default"
    volume = made["spec"]["volumes"][0]
    assert volume["name"].startswith("kube-api-access-")
    assert made["spec"]["containers"][0]["volumeMounts"][0]["name"] == volume["name"]
    plain = await api.create("pods", pod("two", automountServiceAccountToken=False))
    assert "volumes" not in plain["spec"]
    error = await refused(api.create("pods", pod("three", serviceAccountName="nobody")))
    assert (
        'error looking up service account default/nobody: serviceaccount "nobody" not found' in error.message
    )


async def test_a_living_pod_changes_only_its_image(api: Api) -> None:
    await api.create("pods", pod())
    change = {"spec": {"containers": [{"name": "a", "image": "c"}]}}
    changed = await api.patch("pods", "one", change, namespace="default", kind="strategic")
    assert changed["spec"]["containers"][0]["image"] == "c"
    error = await refused(api.patch("pods", "one", {"spec": {"hostname": "x"}}, namespace="default"))
    assert "pod updates may not change fields other than" in error.message
    bound = await api.patch("pods", "one", {"spec": {"nodeName": "here"}}, namespace="default")
    assert bound["spec"]["nodeName"] == "here"


async def test_an_unconditional_write_survives_an_overtaking_one(api: Api) -> None:
    await api.create("configmaps", conf())
    overtaken: int | None = None

    class Overtaker:
        async def mutate(self, request: Any) -> Any:
            nonlocal overtaken
            if overtaken is None:
                overtaken = api.store.revision
                await api.patch("configmaps", "one", {"data": {"other": str(overtaken)}}, namespace="default")
            return request.obj

        async def validate(self, request: Any) -> None:
            pass

    api.writer._admission = Overtaker()
    patched = await api.patch("configmaps", "one", {"data": {"mine": "1"}}, namespace="default")
    assert patched["data"] == {"other": str(overtaken), "mine": "1"}
    overtaken = None
    stale = await api.get("configmaps", "one", namespace="default")
    error = await refused(api.update("configmaps", {**stale, "data": {}}))
    assert (error.code, error.reason) == (409, "Conflict")


@pytest.mark.parametrize(
    ("plural", "group", "spec", "complaint"),
    [
        ("services", "", {"ports": [{"port": 0}]}, "spec.ports[0].port: Invalid value: 0"),
        ("services", "", {"ports": [{"port": 1}, {"port": 2}]}, "spec.ports[0].name: Required value"),
        (
            "services",
            "",
            {"ports": [{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]},
            "spec.ports[1]: Duplicate value",
        ),
        ("services", "", {"ports": [{"port": 1}], "clusterIP": "1.2.3.4"}, "not in the valid range"),
        ("services", "", {"ports": [{"port": 1}], "clusterIP": "10.96.0.1"}, "already allocated"),
        (
            "services",
            "",
            {"ports": [{"port": 1, "nodePort": 80}], "type": "NodePort"},
            "valid ports is 30000-32767",
        ),
        ("services", "", {"type": "Odd", "ports": [{"port": 1}]}, 'spec.type: Unsupported value: "Odd"'),
        ("services", "", {}, "spec.ports: Required value"),
        ("pods", "", {"containers": []}, "spec.containers: Required value"),
        (
            "pods",
            "",
            {"containers": [{"name": "a", "image": "b"}, {"name": "a", "image": "b"}]},
            "spec.containers[1].name: Duplicate value",
        ),
        (
            "pods",
            "",
            {"containers": [{"name": "a", "image": "b", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]},
            'volumeMounts[0].name: Not found: "v"',
        ),
        (
            "pods",
            "",
            {"containers": [{"name": "a", "image": "b", "readinessProbe": {}}]},
            "readinessProbe: Required value: must specify a handler type",
        ),
        (
            "pods",
            "",
            {"containers": [{"name": "a", "image": "b", "resources": {"limits": {"cpu": "much"}}}]},
            "quantities must match",
        ),
        (
            "jobs",
            "batch",
            {"template": {"spec": {"containers": [{"name": "a", "image": "b"}]}}},
            'restartPolicy: Unsupported value: "Always"',
        ),
    ],
)
async def test_rules_of_kinds(api: Api, plural: str, group: str, spec: Any, complaint: str) -> None:
    error = await refused(
        api.create(plural, {"metadata": {"name": "x", "namespace": "default"}, "spec": spec}, group=group)
    )
    assert error.code == 422
    assert complaint in error.message


async def test_a_node_port_is_kept_over_updates_and_freed_with_its_service(api: Api) -> None:
    obj = {
        "metadata": {"name": "s", "namespace": "default"},
        "spec": {"type": "NodePort", "ports": [{"port": 80}]},
    }
    first = await api.create("services", obj)
    port = first["spec"]["ports"][0]["nodePort"]
    again = await api.update("services", obj)
    assert again["spec"]["ports"][0]["nodePort"] == port
    await api.delete("services", "s", namespace="default")
    assert (await api.create("services", obj))["spec"]["ports"][0]["nodePort"] == port


def test_addresses_run_out_one_day() -> None:
    allocator = Allocator(Store(), "10.0.0.0/27")
    assert allocator.address() == "10.0.0.16"
    assert allocator.address() == "10.0.0.17", "an address is not handed out again at once"
    store = Store()
    for number in range(32):
        service = {"metadata": {"name": f"s{number}"}, "spec": {"clusterIP": f"10.0.0.{number}"}}
        store.put("services", "default", f"s{number}", service)
    assert Allocator(store, "10.0.0.0/27").address() is None


async def test_initial_events_of_a_compacted_store_are_complete(api: Api) -> None:
    for number in range(5):
        await api.create("configmaps", conf(f"c{number}"))
    api.store.compact()
    resource = api.registry.find("", "configmaps")
    options = WatchOptions(bookmarks=True, initial_events=True, timeout=0.2)
    names = [
        event.record.obj["metadata"]["name"] if event.record else "end"
        async for event in api.reader.watch(resource, "default", options)
    ]
    assert names[: names.index("end")] == ["c0", "c1", "c2", "c3", "c4", "kube-root-ca.crt"]


async def test_secrets_take_plain_text(api: Api) -> None:
    made = await api.create(
        "secrets", {"metadata": {"name": "s", "namespace": "default"}, "stringData": {"a": "b"}}
    )
    assert (made["data"], made["type"]) == ({"a": "Yg=="}, "Opaque")
    assert "stringData" not in made


async def test_a_job_selects_its_own_pods(api: Api) -> None:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "b"}]}}
    made = await api.create(
        "jobs",
        {"metadata": {"name": "j", "namespace": "default"}, "spec": {"template": template}},
        group="batch",
    )
    uid = made["metadata"]["uid"]
    assert made["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    assert made["spec"]["template"]["metadata"]["labels"]["job-name"] == "j"


async def test_events_are_forgotten(api: Api) -> None:
    for number in range(commits.MAX_EVENTS + 20):
        about = {"kind": "Pod", "name": "p", "namespace": "default"}
        event = {
            "metadata": {"name": f"e{number}", "namespace": "default"},
            "involvedObject": about,
            "reason": "R",
        }
        await api.create("events", event)
    kept = [item["metadata"]["name"] for item in (await api.list("events")).items]
    assert len(kept) == commits.MAX_EVENTS
    assert "e0" not in kept
    assert f"e{commits.MAX_EVENTS + 19}" in kept


@pytest.mark.parametrize(
    ("spec", "ready", "allowed"),
    [
        ({"minAvailable": 1}, 2, 1),
        ({"minAvailable": 2}, 2, 0),
        ({"minAvailable": "50%"}, 3, 1),
        ({"maxUnavailable": 1}, 3, 1),
        ({"maxUnavailable": 1}, 2, 0),
        ({"maxUnavailable": "100%"}, 3, 3),
    ],
)
def test_a_disruption_budget_counts_what_is_there(spec: Any, ready: int, allowed: int) -> None:
    def made(number: int) -> Any:
        status = {"conditions": [{"type": "Ready", "status": "True" if number < ready else "False"}]}
        return {"metadata": {"name": f"p{number}"}, "status": status}

    assert disruptions_allowed({"spec": spec}, [made(number) for number in range(3)])[0] == allowed


async def test_an_eviction_keeps_to_the_budget(api: Api) -> None:
    budget = {"metadata": {"name": "b", "namespace": "default"}, "spec": {"minAvailable": 1, "selector": {}}}
    await api.create("poddisruptionbudgets", budget, group="policy")
    await api.create("pods", pod())
    status = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
    await api.patch("pods", "one", status, namespace="default", subresource="status")
    target = Target(api.registry.find("", "pods"), "default", "one", "eviction")
    error = await refused(evict(api.writer, target, {}, WriteOptions()))
    assert (error.code, error.retry_after) == (429, 10)
    await api.delete("poddisruptionbudgets", "b", group="policy", namespace="default")
    await evict(api.writer, target, {}, WriteOptions())
    assert (await refused(api.get("pods", "one", namespace="default"))).code == 404
