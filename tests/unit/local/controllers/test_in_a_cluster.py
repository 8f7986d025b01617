"""The controllers together, over the real API, with real processes."""

import asyncio
from typing import Any

HELLO = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello}
spec:
  replicas: 2
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: hello
        image: none
        command: [sh, -c, "echo version $VERSION; exec sleep 60"]
        env: [{name: VERSION, value: one}]
        ports: [{name: web, containerPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: hello}
spec:
  selector: {app: hello}
  ports: [{name: http, port: 80, targetPort: web}]
"""


async def test_a_deployment_becomes_available_and_its_service_has_endpoints(cluster: Any) -> None:
    await cluster.apply(HELLO)
    ready = await cluster.until(
        "deployments", "hello", lambda d: d.get("status", {}).get("availableReplicas") == 2, "apps"
    )
    assert {c["type"]: c["status"] for c in ready["status"]["conditions"]} == {
        "Available": "True",
        "Progressing": "True",
    }
    pods = await cluster.pods(app="hello")
    slices = (await cluster.api.list("endpointslices", group="discovery.k8s.io", namespace="default")).items
    mine = [s for s in slices if s["metadata"]["labels"].get("kubernetes.io/service-name") == "hello"]
    assert len(mine) == 1
    assert mine[0]["ports"] == [{"name": "http", "protocol": "TCP", "port": 8080}]
    addresses = {e["addresses"][0]: e["conditions"]["ready"] for e in mine[0]["endpoints"]}
    assert addresses == {p["status"]["podIP"]: True for p in pods}
    endpoints = await cluster.get("endpoints", "hello")
    assert {a["ip"] for a in endpoints["subsets"][0]["addresses"]} == set(addresses)


async def test_a_new_template_replaces_every_pod_and_counts_the_revision(cluster: Any) -> None:
    await cluster.apply(HELLO)
    await cluster.until(
        "deployments", "hello", lambda d: d.get("status", {}).get("availableReplicas") == 2, "apps"
    )
    before = {p["metadata"]["uid"] for p in await cluster.pods(app="hello")}
    env = [{"name": "VERSION", "value": "two"}]
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "hello", "env": env}]}}}}
    await cluster.api.patch(
        "deployments", "hello", patch, group="apps", namespace="default", kind="strategic"
    )
    done = await cluster.until(
        "deployments",
        "hello",
        lambda d: (
            d["status"].get("observedGeneration") == d["metadata"]["generation"]
            and d["status"].get("updatedReplicas")
            == 2
            == d["status"].get("availableReplicas")
            == d["status"].get("replicas")
        ),
        "apps",
    )
    assert done["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2"
    running = [p for p in await cluster.pods(app="hello") if not p["metadata"].get("deletionTimestamp")]
    assert not before & {p["metadata"]["uid"] for p in running}
    assert "version two" in await cluster.log(running[0]["metadata"]["name"])


async def test_deleting_a_deployment_takes_replica_sets_and_pods_with_it(cluster: Any) -> None:
    await cluster.apply(HELLO)
    await cluster.until(
        "deployments", "hello", lambda d: d.get("status", {}).get("availableReplicas") == 2, "apps"
    )
    pods = [p["metadata"]["name"] for p in await cluster.pods(app="hello")]
    await cluster.api.delete("deployments", "hello", group="apps", namespace="default")
    for name in pods:
        await cluster.until_gone("pods", name)
    assert (await cluster.api.list("replicasets", group="apps")).items == []


async def test_orphaned_pods_live_on_and_are_adopted_again(cluster: Any) -> None:
    await cluster.apply(HELLO)
    await cluster.until(
        "deployments", "hello", lambda d: d.get("status", {}).get("availableReplicas") == 2, "apps"
    )
    before = {p["metadata"]["uid"] for p in await cluster.pods(app="hello")}
    await cluster.api.delete("deployments", "hello", group="apps", namespace="default", propagation="Orphan")
    await cluster.until_gone("deployments", "hello", "apps")
    (left,) = (await cluster.api.list("replicasets", group="apps")).items
    assert not left["metadata"].get("ownerReferences")
    await cluster.apply(HELLO.split("---")[0])
    await cluster.until(
        "deployments", "hello", lambda d: d.get("status", {}).get("availableReplicas") == 2, "apps"
    )
    assert {p["metadata"]["uid"] for p in await cluster.pods(app="hello")} == before


async def test_foreground_deletion_keeps_the_owner_until_its_pods_are_gone(cluster: Any) -> None:
    await cluster.apply(HELLO)
    await cluster.until(
        "deployments", "hello", lambda d: d.get("status", {}).get("availableReplicas") == 2, "apps"
    )
    await cluster.api.delete(
        "deployments", "hello", group="apps", namespace="default", propagation="Foreground"
    )
    await cluster.until_gone("deployments", "hello", "apps")
    assert await cluster.pods(app="hello") == []
    assert (await cluster.api.list("replicasets", group="apps")).items == []


async def test_a_namespace_goes_with_everything_in_it(cluster: Any) -> None:
    await cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}")
    await cluster.until("serviceaccounts", "default", lambda _: True, namespace="shop")
    root = await cluster.until("configmaps", "kube-root-ca.crt", lambda _: True, namespace="shop")
    assert "BEGIN CERTIFICATE" in root["data"]["ca.crt"]
    pod = HELLO.split("---")[0].replace("name: hello}", "name: hello, namespace: shop}", 1)
    await cluster.apply(pod)
    await cluster.until(
        "deployments",
        "hello",
        lambda d: d.get("status", {}).get("availableReplicas") == 2,
        "apps",
        namespace="shop",
    )
    await cluster.api.delete("namespaces", "shop")
    await cluster.until_gone("namespaces", "shop", namespace=None)
    assert await cluster.pods(app="hello") == []


REFUSES_DELETIONS = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: refuses}
webhooks:
- name: nobody.answers.example
  clientConfig: {url: "https://127.0.0.1:1/"}
  rules: [{apiGroups: [""], apiVersions: ["v1"], operations: [DELETE], resources: [configmaps]}]
  failurePolicy: Fail
  sideEffects: None
  admissionReviewVersions: [v1]
"""


async def test_a_webhook_that_refuses_deletions_holds_up_a_namespace_and_nothing_else(cluster: Any) -> None:
    await cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: doomed}}")
    await cluster.until("configmaps", "kube-root-ca.crt", lambda _: True, namespace="doomed")
    await cluster.apply(REFUSES_DELETIONS)
    await cluster.api.delete("namespaces", "doomed")
    await asyncio.sleep(1)
    assert await cluster.find("namespaces", "doomed", namespace=None)
    await cluster.apply(HELLO)
    await cluster.until(
        "deployments", "hello", lambda d: d.get("status", {}).get("availableReplicas") == 2, "apps"
    )
    await cluster.api.delete(
        "validatingwebhookconfigurations", "refuses", group="admissionregistration.k8s.io"
    )
    await cluster.until_gone("namespaces", "doomed", namespace=None)


async def test_a_job_completes_with_a_native_sidecar(cluster: Any) -> None:
    await cluster.apply("""
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:
  ttlSecondsAfterFinished: 0
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 1
      initContainers:
      - {name: proxy, image: none, command: [sleep, "60"], restartPolicy: Always}
      containers:
      - {name: work, image: none, command: [sh, -c, "echo done"]}
""")
    done = await cluster.until("jobs", "once", lambda j: j.get("status", {}).get("succeeded") == 1, "batch")
    assert [c["type"] for c in done["status"]["conditions"]] == ["SuccessCriteriaMet", "Complete"]
    await cluster.until_gone("jobs", "once", "batch")
    for pod in await cluster.pods(**{"job-name": "once"}):
        await cluster.until_gone("pods", pod["metadata"]["name"])


async def test_what_a_machine_cannot_give_keeps_a_pod_pending_and_says_why(cluster: Any) -> None:
    await cluster.apply("""
apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  nodeSelector: {disk: ssd}
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
  containers:
  - {name: app, image: none, command: [sleep, "60"], resources: {limits: {nvidia.com/gpu: 1}}}
""")
    pod = await cluster.until("pods", "greedy", lambda p: p.get("status", {}).get("conditions"))
    assert pod["status"]["phase"] == "Pending"
    message = pod["status"]["conditions"][0]["message"]
    for word in ("PersistentVolumeClaim", "nvidia.com/gpu", "nodeSelector disk=ssd"):
        assert word in message
    assert ("FailedScheduling", message) in await cluster.events("greedy")


async def test_pods_that_the_api_refuses_are_named_in_the_deployment_until_they_are_there(
    cluster: Any,
) -> None:
    await cluster.apply(
        HELLO.split("---")[0]
        .replace("name: hello}", "name: hello, namespace: default}", 1)
        .replace(
            "terminationGracePeriodSeconds: 1",
            "terminationGracePeriodSeconds: 1\n      serviceAccountName: later",
        )
    )
    refused = await cluster.until(
        "deployments",
        "hello",
        lambda d: any(c["type"] == "ReplicaFailure" for c in d.get("status", {}).get("conditions", [])),
        "apps",
    )
    failure = next(c for c in refused["status"]["conditions"] if c["type"] == "ReplicaFailure")
    assert failure["status"] == "True" and "later" in failure["message"]
    await cluster.apply("{apiVersion: v1, kind: ServiceAccount, metadata: {name: later}}")
    ready = await cluster.until(
        "deployments", "hello", lambda d: d["status"].get("availableReplicas") == 2, "apps"
    )
    assert not any(c["type"] == "ReplicaFailure" for c in ready["status"]["conditions"])


async def test_kinds_and_fields_that_nobody_acts_on_say_so(cluster: Any) -> None:
    await cluster.apply("""
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec: {podSelector: {}}
---
apiVersion: v1
kind: Service
metadata: {name: outside}
spec: {selector: {a: b}, externalIPs: [192.0.2.1], ports: [{port: 80}]}
""")

    async def said() -> bool:
        events = [*await cluster.events("closed"), *await cluster.events("outside")]
        return [reason for reason, _ in events] == ["NotCarriedOut"] * 2

    await cluster.until_true(said)
    assert "externalIPs" in (await cluster.events("outside"))[0][1]
