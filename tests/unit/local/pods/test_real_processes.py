"""Pods as real processes on loopback addresses: environment, volumes, probes, restarts, logs, the end."""

import asyncio
import base64
import json
import sys
from typing import Any

ENVIRONMENT = """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {COLOUR: red, SIZE: large}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {password: s3cret}
---
apiVersion: v1
kind: Service
metadata: {name: back-end}
spec: {clusterIP: 10.96.1.1, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: env, labels: {tier: front}}
spec:
  restartPolicy: Never
  containers:
  - name: app
    image: none
    command: [sh, -c, 'env; echo "args $0 $1"']
    args: ["$(GREETING)", "$$(GREETING) $(NOBODY)"]
    ports: [{containerPort: 80}]
    resources: {limits: {cpu: 250m, memory: 64Mi}}
    envFrom: [{configMapRef: {name: settings}}]
    env:
    - {name: SIZE, value: small}
    - {name: GREETING, value: "hello $(SIZE)"}
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: keys, key: password}}}
    - {name: MAYBE, valueFrom: {secretKeyRef: {name: keys, key: nothing, optional: true}}}
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: TIER, valueFrom: {fieldRef: {fieldPath: "metadata.labels['tier']"}}}
    - {name: MILLIS, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1m}}}
    - {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
"""


async def test_environment_and_arguments_are_what_the_manifest_says(cluster: Any) -> None:
    await cluster.apply(ENVIRONMENT)
    pod = await cluster.until("pods", "env", lambda p: p["status"].get("phase") == "Succeeded")
    log = await cluster.log("env")
    env = dict(line.split("=", 1) for line in log.splitlines() if "=" in line)
    ip = pod["status"]["podIP"]
    expected = {
        "COLOUR": "red", "SIZE": "small", "GREETING": "hello small", "PASSWORD": "s3cret", "POD": "env", "IP": ip,
        "TIER": "front", "MILLIS": "250", "MEMORY": "64", "HOST": ip, "HOSTNAME": "env",
        "BACK_END_SERVICE_HOST": "10.96.1.1", "BACK_END_PORT_80_TCP": "tcp://10.96.1.1:80",
        "KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "6443",
        "PORT": str(cluster.network.app_port(80)),
    }  # fmt: skip
    assert {name: env.get(name) for name in expected} == expected
    assert "MAYBE" not in env
    assert "args hello small $(GREETING) $(NOBODY)" in log


VOLUMES = """
apiVersion: v1
kind: ConfigMap
metadata: {name: site}
data: {index.html: hello}
---
apiVersion: v1
kind: Pod
metadata: {name: files, annotations: {note: "a b"}}
spec:
  terminationGracePeriodSeconds: 1
  volumes:
  - {name: site, configMap: {name: site}}
  - {name: scratch, emptyDir: {}}
  - {name: info, downwardAPI: {items: [{path: notes, fieldRef: {fieldPath: metadata.annotations}}]}}
  - name: both
    projected:
      sources:
      - {configMap: {name: site, items: [{key: index.html, path: deep/page}]}}
      - {serviceAccountToken: {path: token, audience: mesh, expirationSeconds: 600}}
  initContainers:
  - name: setup
    image: none
    command: [sh, -c, "echo from-setup > $OUT"]
    env: [{name: OUT, value: /scratch/message}]
    volumeMounts: [{name: scratch, mountPath: /scratch}]
  containers:
  - name: app
    image: none
    command: [sh, -c, 'cat "$A" "$B" "$C" "$D/deep/page"; echo; ls -l "$E"; exec sleep 60']
    env:
    - {name: A, value: /site/index.html}
    - {name: B, value: /shared-data/message}
    - {name: C, value: /info/notes}
    - {name: D, value: /both}
    - {name: E, value: /var/run/secrets/kubernetes.io/serviceaccount}
    volumeMounts:
    - {name: site, mountPath: /site}
    - {name: scratch, mountPath: /shared-data}
    - {name: info, mountPath: /info}
    - {name: both, mountPath: /both}
"""


async def test_volumes_hold_what_they_name_and_follow_changes(cluster: Any) -> None:
    await cluster.apply(VOLUMES)
    pod = await cluster.until("pods", "files", lambda p: p["status"].get("phase") == "Running")
    log = await cluster.until_logged("files", "token", "app")
    for text in ("hellofrom-setup", 'note="a b"', "hello\n", "ca.crt", "namespace"):
        assert text in log
    folder = cluster.state / "pods" / pod["metadata"]["uid"] / "volumes"
    token = (folder / "both" / "token").read_text()
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims["aud"] == ["mesh"] and claims["kubernetes.io"]["pod"]["name"] == "files"
    patch = {"data": {"index.html": "changed"}}
    await cluster.api.patch("configmaps", "site", patch, namespace="default")
    async with asyncio.timeout(30):
        while (folder / "site" / "index.html").read_text() != "changed":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert (folder / "both" / "deep" / "page").read_text() == "changed"
    await cluster.api.delete("pods", "files", namespace="default")
    await cluster.until_gone("pods", "files")
    assert not folder.exists()


async def test_a_missing_config_map_is_named_and_the_pod_starts_once_it_is_there(cluster: Any) -> None:
    await cluster.apply("""
apiVersion: v1
kind: Pod
metadata: {name: late}
spec:
  restartPolicy: Never
  volumes: [{name: v, configMap: {name: later}}]
  containers: [{name: app, image: none, command: ["true"], volumeMounts: [{name: v, mountPath: /v}]}]
""")

    async def named() -> bool:
        return any(r == "FailedMount" and "later" in m for r, m in await cluster.events("late"))

    await cluster.until_true(named)
    await cluster.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: later}, data: {a: b}}")
    await cluster.until("pods", "late", lambda p: p["status"].get("phase") == "Succeeded")


SERVER = """
import http.server, os, sys
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ok = self.path == "/live" or os.path.exists(os.environ["GATE"])
        self.send_response(200 if ok else 503); self.end_headers()
    def log_message(self, *a): pass
http.server.HTTPServer((os.environ["HOST"], int(os.environ["PORT"])), H).serve_forever()
"""


async def test_http_probes_decide_over_readiness_and_go_to_the_port_of_the_manifest(cluster: Any) -> None:
    gate = cluster.state / "gate"
    await cluster.api.create("pods", {
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "app", "image": "none", "command": [sys.executable, "-c", SERVER],
                "ports": [{"name": "http", "containerPort": 80}],
                "env": [{"name": "GATE", "value": str(gate)}],
                "startupProbe": {"httpGet": {"path": "/live", "port": "http"}, "periodSeconds": 1, "failureThreshold": 20},
                "readinessProbe": {"httpGet": {"path": "/ready", "port": 80}, "periodSeconds": 1, "failureThreshold": 1},
            }],
        },
    })  # fmt: skip
    started = await cluster.until(
        "pods", "web", lambda p: p["status"].get("containerStatuses", [{}])[0].get("started")
    )
    assert started["status"]["containerStatuses"][0]["ready"] is False
    gate.touch()
    await cluster.until("pods", "web", lambda p: p["status"]["containerStatuses"][0]["ready"])
    gate.unlink()
    unready = await cluster.until("pods", "web", lambda p: not p["status"]["containerStatuses"][0]["ready"])
    assert next(c for c in unready["status"]["conditions"] if c["type"] == "Ready")["status"] == "False"
    assert any(r == "Unhealthy" and "503" in m for r, m in await cluster.events("web"))


async def test_a_crash_is_restarted_with_its_exit_code_and_last_words_kept(cluster: Any) -> None:
    await cluster.apply("""
apiVersion: v1
kind: Pod
metadata: {name: crash}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: none
    command: [sh, -c, "echo oh no; exit 3"]
    terminationMessagePolicy: FallbackToLogsOnError
""")
    pod = await cluster.until(
        "pods",
        "crash",
        lambda p: (
            p["status"].get("containerStatuses", [{}])[0].get("state", {}).get("waiting", {}).get("reason")
            == "CrashLoopBackOff"
        ),
    )
    status = pod["status"]["containerStatuses"][0]
    assert status["restartCount"] == 1
    last = status["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"], last["message"]) == (3, "Error", "oh no\n")
    assert await cluster.log("crash", previous=True) == "oh no\n"
    assert any(reason == "BackOff" for reason, _ in await cluster.events("crash"))


async def test_an_image_without_a_program_waits_and_says_what_to_add(cluster: Any) -> None:
    await cluster.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: unknown}, spec: {containers: [{name: app, image: 'acme/app:1.2'}]}}"
    )
    pod = await cluster.until(
        "pods",
        "unknown",
        lambda p: (
            p["status"].get("containerStatuses", [{}])[0].get("state", {}).get("waiting", {}).get("message")
        ),
    )
    waiting = pod["status"]["containerStatuses"][0]["state"]["waiting"]
    assert waiting["reason"] == "ImagePullBackOff"
    assert "acme/app:*" in waiting["message"] and "tulle.toml" in waiting["message"]
    assert pod["status"]["phase"] == "Pending"


async def test_deletion_gives_the_grace_period_and_takes_the_children_too(cluster: Any) -> None:
    note = cluster.state / "note"
    await cluster.apply(f"""
apiVersion: v1
kind: Pod
metadata: {{name: polite}}
spec:
  terminationGracePeriodSeconds: 10
  containers:
  - name: app
    image: none
    command: [sh, -c, "sleep 61 & trap 'echo bye > {note}; exit 0' TERM; echo up; while :; do sleep 0.05; done"]
    lifecycle: {{preStop: {{exec: {{command: [sh, -c, "echo first > {note}.pre"]}}}}}}
""")
    await cluster.until("pods", "polite", lambda p: p["status"].get("phase") == "Running")
    await cluster.until_logged("polite", "up")
    await cluster.api.delete("pods", "polite", namespace="default")
    await cluster.until_gone("pods", "polite")
    assert note.read_text() == "bye\n"
    assert (cluster.state / "note.pre").read_text() == "first\n"
    assert cluster.agent.running == 0


async def test_a_process_that_ignores_the_signal_is_killed_at_the_end_of_its_grace_period(
    cluster: Any,
) -> None:
    await cluster.apply("""
apiVersion: v1
kind: Pod
metadata: {name: stubborn}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: app, image: none, command: [sh, -c, "trap '' TERM; echo up; while :; do sleep 0.1; done"]}
""")
    await cluster.until("pods", "stubborn", lambda p: p["status"].get("phase") == "Running")
    await cluster.until_logged("stubborn", "up")
    began = asyncio.get_running_loop().time()
    await cluster.api.delete("pods", "stubborn", namespace="default")
    await cluster.until_gone("pods", "stubborn")
    assert 0.9 < asyncio.get_running_loop().time() - began < 5


async def test_a_command_runs_inside_with_input_output_and_exit_code(cluster: Any) -> None:
    await cluster.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: box}, spec: {terminationGracePeriodSeconds: 1, "
        "containers: [{name: app, image: none, command: [sleep, '60'], env: [{name: WHO, value: me}]}]}}"
    )
    await cluster.until("pods", "box", lambda p: p["status"].get("phase") == "Running")
    argv = ["sh", "-c", "read line; echo $WHO $line; echo oops >&2; exit 7"]
    session = await cluster.agent.exec("default", "box", "app", argv, stdin=True, tty=False)
    await session.write(b"hi\n")
    output = [chunk async for chunk in session.output()]
    assert await session.wait() == 7
    await session.close()
    assert sorted(output) == [("stderr", b"oops\n"), ("stdout", b"me hi\n")]


async def test_a_terminal_is_a_terminal_with_a_size(cluster: Any) -> None:
    await cluster.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: box}, spec: {terminationGracePeriodSeconds: 1, "
        "containers: [{name: app, image: none, command: [sleep, '60']}]}}"
    )
    await cluster.until("pods", "box", lambda p: p["status"].get("phase") == "Running")
    session = await cluster.agent.exec(
        "default", "box", "app", ["sh", "-c", "read x; stty size; tty -s && echo yes"], stdin=True, tty=True
    )
    session.resize(100, 30)
    await session.write(b"go\n")
    text = b"".join([chunk async for _, chunk in session.output()]).decode()
    assert await session.wait() == 0
    await session.close()
    assert "30 100" in text and "yes" in text


async def test_a_log_is_followed_until_its_container_ends(cluster: Any) -> None:
    await cluster.apply("""
apiVersion: v1
kind: Pod
metadata: {name: talk}
spec:
  restartPolicy: Never
  containers:
  - {name: app, image: none, command: [sh, -c, "echo one; sleep 0.3; echo two >&2; sleep 0.3; printf three"]}
""")
    await cluster.until("pods", "talk", lambda p: p["status"].get("phase") == "Running")
    lines = [
        line
        async for line in cluster.agent.logs(
            "default", "talk", "app",
            follow=True, tail_lines=None, previous=False, since_seconds=None, timestamps=False,
        )
    ]  # fmt: skip
    assert lines == [b"one\n", b"two\n", b"three\n"]
