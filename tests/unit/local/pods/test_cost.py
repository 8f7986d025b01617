"""What a pod costs the agent: processor time and writes to the API. `make bench` prints the same figures."""

import time
from typing import Any

PODS = 10
MOST_SECONDS = 0.1
"""The promise: processor time of API, controllers and agent together for one more pod."""
MOST_WRITES = 20
"""Objects written for one more pod: the pod, its status at each step, its Events, its owner's counts."""


def deployment(replicas: int) -> dict[str, Any]:
    container = {
        "name": "app",
        "image": "none",
        "command": ["sleep", "60"],
        "readinessProbe": {"exec": {"command": ["true"]}},
    }
    template = {
        "metadata": {"labels": {"app": "many"}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
    }
    return {
        "metadata": {"name": "many", "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "many"}}, "template": template},
    }


async def test_one_more_pod_stays_within_its_budget(cluster: Any) -> None:
    await cluster.api.create("deployments", deployment(1), group="apps", namespace="default")
    await cluster.until(
        "deployments", "many", lambda d: d.get("status", {}).get("availableReplicas") == 1, "apps"
    )
    before, version = time.process_time(), int((await cluster.api.list("pods")).resource_version)
    more = {"spec": {"replicas": 1 + PODS}}
    await cluster.api.patch("deployments", "many", more, group="apps", namespace="default")
    await cluster.until(
        "deployments", "many", lambda d: d["status"].get("availableReplicas") == 1 + PODS, "apps"
    )
    spent = (time.process_time() - before) / PODS
    written = (int((await cluster.api.list("pods")).resource_version) - version) / PODS
    print(f"one more pod: {spent * 1000:.1f} ms of agent time, {written:.1f} objects written")
    assert spent <= MOST_SECONDS
    assert written <= MOST_WRITES
