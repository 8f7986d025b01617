"""The control plane against the embedded Kubernetes API over HTTPS, with exactly the rights that the install grants."""

import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509

from tests.fakes.cluster import Obj, endpoint, pod, route, server, service, slice_of
from tests.unit.control.conftest import Running, running, until
from tests.unit.control.test_identity import csr
from tests.unit.control.test_streams import INBOUND, VOTING, addresses, next_of
from tulle.api import (
    DESTINATION_GET,
    IDENTITY_CERTIFY,
    INBOUND_WATCH_PORT,
    destination_pb2,
    identity_pb2,
    inbound_pb2,
)
from tulle.clock import SystemClock
from tulle.compile.validate import problems
from tulle.control.http import bind
from tulle.control.issuing import from_api
from tulle.inject.install import InstallValues, render
from tulle.kube.client import Client, load_config
from tulle.kube.world import kind_of
from tulle.local.api import Api
from tulle.local.api.http.server import ApiServer

OTHERS = {
    "CustomResourceDefinition": "customresourcedefinitions",
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "ConfigMap": "configmaps",
    "Secret": "secrets",
}
LEFT_OUT = ("Deployment", "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")


async def create(api: Api, *objects: Obj) -> None:
    for each in objects:
        group = each["apiVersion"].rpartition("/")[0]
        kind = kind_of(each)
        plural = kind.plural if kind is not None else OTHERS[each["kind"]]
        metadata = {
            k: v
            for k, v in each["metadata"].items()
            if k not in ("uid", "creationTimestamp", "ownerReferences")
        }
        created = await api.create(
            plural, {**each, "metadata": metadata}, group=group, namespace=metadata.get("namespace")
        )
        if "status" in each:
            await api.update(plural, {**created, "status": each["status"]}, group=group, subresource="status")


class Installed:
    """An embedded API with the control plane's objects in it, and one connection as the controller."""

    def __init__(self, api: Api, client: Client) -> None:
        self.api, self.client = api, client


@contextlib.asynccontextmanager
async def installed(folder: Path) -> AsyncIterator[Installed]:
    api = Api()
    await api.seed()
    manifests = [
        each for each in render(InstallValues(), SystemClock().now()) if each["kind"] not in LEFT_OUT
    ]
    await create(api, *manifests)
    listener = bind("127.0.0.1", 0)
    async with ApiServer(api) as web:
        await web.listen(listener)
        token = await api.request_token("linkerd", "tulle-controller")
        path = folder / "kubeconfig"
        path.write_text(
            _kubeconfig(listener.getsockname()[1], api.authority.bundle, token["status"]["token"], folder)
        )
        async with Client(load_config(str(path))) as client:
            yield Installed(api, client)


def _kubeconfig(port: int, bundle: bytes, token: str, folder: Path) -> str:
    (folder / "ca.crt").write_bytes(bundle)
    document = {
        "clusters": [
            {
                "name": "c",
                "cluster": {
                    "server": f"https://127.0.0.1:{port}",
                    "certificate-authority": str(folder / "ca.crt"),
                },
            }
        ],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    return yaml.safe_dump(document)


def workload() -> list[Obj]:
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "voting", "namespace": "default"},
    }
    voting = pod("voting-1", "10.42.0.3")
    voting["spec"]["containers"] = [
        {"name": "c", "image": "x", "ports": [{"containerPort": 8080, "name": "web"}]}
    ]
    return [
        account,
        service("voting", "10.96.0.77"),
        voting,
        slice_of("voting", [endpoint("voting-1", "10.42.0.3")]),
    ]


async def status_of(api: Api, name: str) -> dict[str, Any]:
    found = await api.get("httproutes", name, group="gateway.networking.k8s.io", namespace="default")
    status: dict[str, Any] = found.get("status") or {}
    return status


async def test_a_mesh_on_the_embedded_api_with_the_rights_of_the_install(tmp_path: Path) -> None:
    async with installed(tmp_path) as cluster, _controller(cluster) as plane:
        api, ports = cluster.api, plane.controller.settings.ports
        await until(lambda: not plane.controller.not_ready())
        await create(api, *workload())
        stream = plane.stream(ports.destination, DESTINATION_GET, VOTING, destination_pb2.Update)
        update = await next_of(stream)
        while update.WhichOneof("update") != "add":
            update = await next_of(stream)
        assert addresses(update) == ["10.42.0.3"]
        assert update.add.addrs[0].tls_identity.dns_like_identity.name.startswith("voting.default.")

        inbound = plane.stream(ports.policy, INBOUND_WATCH_PORT, INBOUND, inbound_pb2.Server)
        assert list((await next_of(inbound)).services) == ["voting"]
        await create(api, server("voting-web", "web"))
        assert (await next_of(inbound)).labels["name"] == "voting-web"

        await create(api, route("canary", [{"backendRefs": [{"name": "gone", "port": 80}]}]))
        await until(lambda: plane.controller.reporter.patched > 0)
        judged = await status_of(api, "canary")
        reasons = {c["type"]: c["reason"] for c in judged["parents"][0]["conditions"]}
        assert reasons == {"Accepted": "Accepted", "ResolvedRefs": "BackendNotFound"}

        found = await api.get("pods", "voting-1", namespace="default")
        token = await api.request_token("default", "voting", audiences=["identity.l5d.io"], pod=found)
        name = "voting.default.serviceaccount.identity.linkerd.cluster.local"
        answer = await plane.ask(
            ports.identity,
            IDENTITY_CERTIFY,
            identity_pb2.CertifyRequest(
                identity=name, token=token["status"]["token"].encode(), certificate_signing_request=csr(name)
            ),
            identity_pb2.CertifyResponse,
        )
        leaf = x509.load_der_x509_certificate(answer.leaf_certificate)
        assert leaf.subject.rfc4514_string() == "OU=voting-1,O=default"
        stream.cancel()
        inbound.cancel()


@contextlib.asynccontextmanager
async def _controller(cluster: Installed) -> AsyncIterator[Running]:
    roots = await cluster.api.get("configmaps", "linkerd-identity-trust-roots", namespace="linkerd")
    assert ssl.PEM_cert_to_DER_cert(roots["data"]["ca-bundle.crt"])
    async with running(cluster.client, from_api(cluster.client, "linkerd")) as plane:
        yield plane


def test_the_installs_own_objects_have_no_problem() -> None:
    assert [str(p) for each in render(InstallValues(), SystemClock().now()) for p in problems(each)] == []
