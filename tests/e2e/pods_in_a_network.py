"""Run by test_network_pods.py in a process of its own: a network of one mode, two pods, and what they see.

`python pods_in_a_network.py MODE` prints one JSON object and ends. It stands where the world stands: in the
namespaces, with the launcher forked first.
"""

# ruff: noqa: ASYNC240 - a script of one task, nobody waits behind it

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from tulle.local.net import kernel
from tulle.local.net.probe import enter_namespaces
from tulle.local.net.processes import fork_launcher

ECHO = """
import http.server, os, sys
class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{os.environ['NAME']} saw {self.client_address[0]}".encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer((os.environ["BIND"], int(os.environ["PORT"])), Echo)
print("listening", flush=True)
server.serve_forever()
"""


ECHO_UDP = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 5353))
print("listening", flush=True)
while True:
    data, client = server.recvfrom(2048)
    server.sendto(data + b" to " + client[0].encode(), client)
"""
ASK_UDP = """
import socket
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(20)
client.connect((socket.gethostbyname("udp.other"), 53))
client.send(b"hello")
print(client.recv(2048).decode())
"""


def enter(mode: str) -> None:
    """Be the first process of the namespaces, or stay where we are."""
    if mode == "loopback":
        return
    enter_namespaces(user_namespace=mode == "userns")
    if (world := os.fork()) != 0:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(world, 0)[1]))
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("proc", "/proc", "proc")


def main(mode: str) -> None:
    enter(mode)
    launcher = fork_launcher()
    from tulle.local.net import (
        Backend,
        Mount,
        Network,
        PodKey,
        PodNetwork,
        ProcessSpec,
        ServiceRoute,
        SpawnError,
    )
    from tulle.local.net.isolated import IsolatedNetwork
    from tulle.local.net.loopback import LoopbackNetwork

    async def output(network: Network, pod: PodNetwork, *argv: str, **more: Any) -> str:
        read, write = os.pipe()
        env = {"PATH": os.environ["PATH"], **more.pop("env", {})}
        process = await network.spawn(pod, ProcessSpec(argv, env, write, write, **more))
        os.close(write)
        await process.wait()
        with os.fdopen(read, "rb") as pipe:
            return pipe.read().decode().strip()

    async def serve(network: Network, pod: PodNetwork, name: str, port: int, program: str = ECHO) -> Any:
        read, write = os.pipe()
        bind = "0.0.0.0" if network.transparent else pod.ip
        env = {"PATH": os.environ["PATH"], "NAME": name, "BIND": bind, "PORT": str(network.app_port(port))}
        # Any other user than root, where there is one, to see that port 80 is hers to bind.
        interpreter = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
        process = await network.spawn(
            pod, ProcessSpec([interpreter, "-c", program], env, write, 2, uid=65534)
        )
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            await asyncio.to_thread(pipe.readline)
        return process

    async def run(folder: Path) -> dict[str, Any]:
        network: Network
        if mode == "loopback":
            network = LoopbackNetwork("test", launcher, "test", ("127.0.0.1", 1))
        else:
            network = IsolatedNetwork("netns" if mode == "netns" else "userns", "test", launcher, folder)
        await network.start()
        one = await network.add_pod(PodKey("default", "one", "uid-1"))
        two = await network.add_pod(PodKey("other", "two", "uid-2"))
        again = await network.add_pod(PodKey("default", "one", "uid-1"))
        seen: dict[str, Any] = {"same": again == one, "ips": [one.ip, two.ip]}
        server = await serve(network, two, "two", 80)
        await serve(network, one, "one", 80)
        if network.transparent:
            await serve(network, two, "udp", 5353, ECHO_UDP)
        reader, writer = await network.dial(two.ip, 80)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        seen["dialled"] = (await reader.read()).decode().splitlines()[-1]
        writer.close()
        await network.set_services(
            [
                ServiceRoute("other", "web", "http", 8000, "TCP", "10.96.7.7", (Backend(two.ip, 80),)),
                ServiceRoute("default", "self", "http", 80, "TCP", "10.96.7.8", (Backend(one.ip, 80),)),
                ServiceRoute("other", "none", "http", 80, "TCP", "10.96.7.9"),
                ServiceRoute("other", "udp", "dns", 53, "UDP", "10.96.7.10", (Backend(two.ip, 5353),)),
                ServiceRoute("other", "alias", "", 0, external_name="web.other.svc.cluster.local"),
                ServiceRoute("other", "heads", "http", 80, "TCP", None, (Backend(two.ip, 80, "two"),)),
            ]
        )
        curl = ("curl", "-sS", "--noproxy", "*", "--max-time", "5")
        if network.transparent:
            seen["by name"] = await output(network, one, *curl, "http://web.other:8000/")
            seen["by full name"] = await output(
                network, one, *curl, "http://web.other.svc.cluster.local:8000/"
            )
            seen["itself"] = await output(network, one, *curl, "http://self/")
            seen["refused"] = await output(network, one, *curl, "http://none.other/")
            seen["unknown port"] = await output(network, one, *curl, "http://10.96.7.7:81/")
            interpreter = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
            seen["by UDP"] = await output(network, one, interpreter, "-c", ASK_UDP)
            lookup = "import socket; print(sorted({a[4][0] for a in socket.getaddrinfo('%s', 80)}))"
            python = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
            for name in ("web.other", "alias.other", "heads.other", "two.heads.other.svc.cluster.local"):
                seen[name] = await output(network, one, python, "-c", lookup % name)
            (folder / "secret").mkdir()
            (folder / "secret" / "token").write_text("t0ken")
            mounts = [
                Mount(str(folder / "secret"), "/var/run/secrets/app", True),
                Mount(str(folder / "secret"), "/not/on/this/machine"),
                Mount(str(folder / "secret"), "/etc/tulle-test-config", True),
            ]
            script = (
                "hostname; cat /var/run/secrets/app/token /not/on/this/machine/token /etc/tulle-test-config/token;"
                " touch /var/run/secrets/app/x 2>/dev/null && echo written; echo; ls -d /run/user 2>/dev/null;"
                " touch /etc/tulle-test-touched && echo touched"
            )
            seen["inside"] = await output(network, one, "/bin/sh", "-c", script, mounts=mounts)
            seen["on the machine"] = [
                path
                for path in ("/not", "/etc/tulle-test-config", "/etc/tulle-test-touched")
                if os.path.lexists(path)
            ]
            seen["uid"] = await output(network, one, "id", "-u", uid=65534)
        else:
            seen["direct"] = await output(network, one, *curl, f"http://{two.ip}:{network.app_port(80)}/")
        seen["descriptors"] = await output(network, one, "/bin/sh", "-c", "ls /proc/self/fd | wc -l")
        try:
            await output(network, one, "/no/such/program")
        except SpawnError as error:
            seen["no program"] = [error.step, error.errno]
        left_behind = await output(network, one, "/bin/sh", "-c", "sleep 300 >/dev/null 2>&1 & echo $!")
        await asyncio.sleep(0.2)
        seen["left behind by an ended container"] = os.path.exists(f"/proc/{left_behind}")
        await network.remove_pod(two.key)
        seen["ended with its pod"] = await asyncio.wait_for(server.wait(), 5)
        await network.stop()
        return seen

    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        print(json.dumps(asyncio.run(run(Path(folder)))), flush=True)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(-1, 0)
    os._exit(0)


main(sys.argv[1])
