"""List and watch: what informers rely on."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import kubernetes as kubernetes_client
import pytest

from tests.conformance.clients import Kubectl, wait_until
from tests.conformance.conftest import HISTORY

kubernetes: Any = kubernetes_client

pytestmark = pytest.mark.conformance


def config_map(name: str, **labels: str) -> Any:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}}


@contextmanager
def watching(http: httpx2.Client, namespace: str, **parameters: str) -> Iterator[Iterator[Any]]:
    """Open a watch on ConfigMaps; yields its events as they come."""
    query = {"watch": "true", "timeoutSeconds": "20", **parameters}
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    with http.stream("GET", path, params=query, timeout=25) as response:
        if response.status_code != 200:
            response.read()
            raise AssertionError(response.text)
        yield (json.loads(line) for line in response.iter_lines() if line)


def of(event: Any) -> tuple[str, str]:
    return event["type"], event["object"]["metadata"].get("name", "")


def version_now(core: Any, namespace: str) -> str:
    return str(core.list_namespaced_config_map(namespace).metadata.resource_version)


def test_a_watch_continues_from_a_list(core: Any, http: httpx2.Client, namespace: str) -> None:
    core.create_namespaced_config_map(namespace, config_map("before"))
    start = version_now(core, namespace)
    core.create_namespaced_config_map(namespace, config_map("after"))
    core.patch_namespaced_config_map("after", namespace, {"data": {"a": "b"}})
    core.delete_namespaced_config_map("after", namespace)
    with watching(http, namespace, resourceVersion=start) as events:
        seen = [next(events) for _ in range(3)]
    assert [of(event) for event in seen] == [("ADDED", "after"), ("MODIFIED", "after"), ("DELETED", "after")]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in seen]
    assert versions == sorted(versions)
    assert versions[0] > int(start)


def test_a_watch_without_version_begins_with_what_there_is(
    core: Any, http: httpx2.Client, namespace: str
) -> None:
    core.create_namespaced_config_map(namespace, config_map("one"))
    with watching(http, namespace) as events:
        # Other objects of the namespace (a cluster's own certificate) may come before.
        assert any(of(event) == ("ADDED", "one") for event in events)


def test_bookmarks_carry_a_version_to_go_on_from(core: Any, http: httpx2.Client, namespace: str) -> None:
    start = version_now(core, namespace)
    with watching(
        http, namespace, resourceVersion=start, allowWatchBookmarks="true", timeoutSeconds="3"
    ) as events:
        marks = [event for event in events if event["type"] == "BOOKMARK"]
    assert marks
    assert marks[-1]["object"]["kind"] == "ConfigMap"
    version = marks[-1]["object"]["metadata"]["resourceVersion"]
    core.create_namespaced_config_map(namespace, config_map("later"))
    with watching(http, namespace, resourceVersion=version) as events:
        assert of(next(events)) == ("ADDED", "later")


def test_a_streaming_list_ends_with_a_marked_bookmark(core: Any, http: httpx2.Client, namespace: str) -> None:
    core.create_namespaced_config_map(namespace, config_map("one"))
    parameters = {
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
    }
    with watching(http, namespace, **parameters) as events:
        names = set()
        for event in events:
            if event["type"] == "BOOKMARK":
                assert event["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true"
                break
            assert event["type"] == "ADDED"
            names.add(event["object"]["metadata"]["name"])
        assert "one" in names
        core.create_namespaced_config_map(namespace, config_map("two"))
        assert of(next(events)) == ("ADDED", "two")


def test_a_selector_turns_changes_into_additions_and_deletions(
    core: Any, http: httpx2.Client, namespace: str
) -> None:
    start = version_now(core, namespace)
    core.create_namespaced_config_map(namespace, config_map("one", tier="back"))
    core.patch_namespaced_config_map("one", namespace, {"metadata": {"labels": {"tier": "front"}}})
    core.patch_namespaced_config_map("one", namespace, {"data": {"a": "b"}})
    core.patch_namespaced_config_map("one", namespace, {"metadata": {"labels": {"tier": "back"}}})
    with watching(http, namespace, resourceVersion=start, labelSelector="tier=front") as events:
        seen = [of(next(events)) for _ in range(3)]
    assert seen == [("ADDED", "one"), ("MODIFIED", "one"), ("DELETED", "one")]


def test_a_compacted_version_is_gone(core: Any, http: httpx2.Client, namespace: str, cluster: Any) -> None:
    start = version_now(core, namespace)
    core.create_namespaced_config_map(namespace, config_map("busy"))
    if cluster.embedded:
        for count in range(HISTORY + 10):
            core.patch_namespaced_config_map("busy", namespace, {"data": {"n": str(count)}})
    else:
        start = "1"
    with watching(http, namespace, resourceVersion=start) as events:
        event = next(events)
    assert event["type"] == "ERROR"
    assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")
    watch = kubernetes.watch.Watch()
    with pytest.raises(kubernetes.client.ApiException) as raised:
        next(
            iter(
                watch.stream(
                    core.list_namespaced_config_map, namespace, resource_version=start, timeout_seconds=5
                )
            )
        )
    assert raised.value.status == 410


def test_a_slow_watcher_is_dropped_and_told(
    core: Any, http: httpx2.Client, namespace: str, cluster: Any
) -> None:
    if not cluster.embedded:
        pytest.skip("how much a cluster buffers is its own affair")
    start = version_now(core, namespace)
    padding = "x" * 100_000
    core.create_namespaced_config_map(namespace, config_map("busy"))
    with watching(http, namespace, resourceVersion=start) as events:
        next(events)
        for count in range(HISTORY * 2):
            core.patch_namespaced_config_map(
                "busy", namespace, {"data": {"n": str(count), "padding": padding}}
            )
        last = ""
        for event in events:
            last = event["type"]
    assert last == "ERROR", "what the server kept for a client that did not read has a bound"


def test_the_official_client_watches_while_another_changes(core: Any, namespace: str) -> None:
    watch = kubernetes.watch.Watch()
    seen: list[tuple[str, str]] = []

    def follow() -> None:
        for event in watch.stream(core.list_namespaced_config_map, namespace, timeout_seconds=30):
            seen.append((event["type"], event["object"].metadata.name))
            if event["object"].metadata.name == "last":
                watch.stop()

    thread = threading.Thread(target=follow)
    thread.start()
    core.create_namespaced_config_map(namespace, config_map("first"))
    core.create_namespaced_config_map(namespace, config_map("last"))
    thread.join(30)
    assert ("ADDED", "first") in seen
    assert ("ADDED", "last") in seen


def test_pages_show_one_moment(core: Any, namespace: str) -> None:
    names = [f"page-{number:02}" for number in range(7)]
    for name in names:
        core.create_namespaced_config_map(namespace, config_map(name, paged="yes"))
    page = core.list_namespaced_config_map(namespace, limit=3, label_selector="paged=yes")
    core.create_namespaced_config_map(namespace, config_map("page-00a", paged="yes"))
    found = [item.metadata.name for item in page.items]
    version = page.metadata.resource_version
    while page.metadata._continue:
        page = core.list_namespaced_config_map(
            namespace, limit=3, label_selector="paged=yes", _continue=page.metadata._continue
        )
        assert page.metadata.resource_version == version
        found += [item.metadata.name for item in page.items]
    assert found == names


def test_a_foreign_continue_token_is_refused(http: httpx2.Client, namespace: str) -> None:
    answer = http.get(
        f"/api/v1/namespaces/{namespace}/configmaps", params={"limit": "1", "continue": "nonsense"}
    )
    assert answer.status_code in (400, 410)


def test_metadata_only_and_table_lists(http: httpx2.Client, core: Any, namespace: str) -> None:
    core.create_namespaced_config_map(namespace, config_map("one"))
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    partial = http.get(path, headers={"accept": accept}).json()
    assert partial["kind"] == "PartialObjectMetadataList"
    assert all(set(item) <= {"metadata", "kind", "apiVersion"} for item in partial["items"])
    table = http.get(path, headers={"accept": "application/json;as=Table;g=meta.k8s.io;v=v1"}).json()
    assert (table["kind"], table["columnDefinitions"][0]["name"]) == ("Table", "Name")
    assert "one" in {row["cells"][0] for row in table["rows"]}


def test_kubectl_waits_for_deletion(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "held")
    kubectl("patch", "cm", "held", "-p", '{"metadata":{"finalizers":["conformance.tulle.dev/hold"]}}')
    deleting = kubectl.start("delete", "cm", "held")
    wait_until(
        lambda: "deletionTimestamp" in kubectl("get", "cm", "held", "-o", "json"), "the deletion began"
    )
    assert deleting.poll() is None
    kubectl("patch", "cm", "held", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    assert deleting.wait(30) == 0
    deleting.communicate()
