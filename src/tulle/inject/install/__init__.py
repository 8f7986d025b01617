"""The control plane's install manifests: what `tulle install` prints and `tulle up` applies.

`render` makes fresh certificates and returns the objects; `manifests` underneath is pure.
"""

from datetime import datetime
from typing import Any

from tulle.inject.install.certificates import make_issuer, make_serving, make_trust_anchor
from tulle.inject.install.manifests import manifests
from tulle.inject.install.values import InstallValues, inject_config, read_values, write_values

__all__ = ["InstallValues", "inject_config", "read_values", "render", "write_values"]


def render(values: InstallValues, now: datetime) -> list[dict[str, Any]]:
    """Return the objects of a new installation, in the order to apply them; its trust anchor is made here.

    The anchor's private key is dropped: only the issuer it signed can sign, until a new anchor is installed.
    """
    anchor = make_trust_anchor(values.trust_domain, now)
    issuer = make_issuer(anchor, values.namespace, values.trust_domain, now)
    service = "linkerd-proxy-injector"
    names = [
        f"{service}.{values.namespace}.svc",
        f"{service}.{values.namespace}.svc.{values.cluster_domain}",
    ]
    authority, webhook = make_serving(names, now)
    return manifests(values, anchor, issuer, authority, webhook)
