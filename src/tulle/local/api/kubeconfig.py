"""The kubeconfig with which kubectl and client libraries reach the embedded API."""

import base64
import os
from pathlib import Path

import yaml

from tulle.local.api.auth.certificates import Authority, Credential
from tulle.local.api.auth.users import MASTERS

__all__ = ["admin_kubeconfig", "kubeconfig", "write_kubeconfig"]


def kubeconfig(server: str, bundle: bytes, client: Credential, *, name: str = "tulle") -> str:
    """Return a kubeconfig for a server URL, with a client certificate inside; whoever reads it is that user."""

    def encoded(data: bytes) -> str:
        return base64.b64encode(data).decode()

    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": name, "cluster": {"server": server, "certificate-authority-data": encoded(bundle)}}
        ],
        "users": [
            {
                "name": name,
                "user": {
                    "client-certificate-data": encoded(client.certificate),
                    "client-key-data": encoded(client.key),
                },
            }
        ],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
        "current-context": name,
    }
    return yaml.safe_dump(document, sort_keys=False)


def admin_kubeconfig(authority: Authority, server: str, *, name: str = "tulle") -> str:
    """Return a kubeconfig that may do everything."""
    return kubeconfig(server, authority.bundle, authority.client("tulle-admin", [MASTERS]), name=name)


def write_kubeconfig(path: Path, text: str) -> None:
    """Write a kubeconfig that only its owner can read, all at once."""
    partial = path.with_name(path.name + ".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    partial.replace(path)
