"""The sidecar injector: a pure function (pod, namespace, config) → pod, and the few ways to reach it.

It owns the shape of an injected pod, Linkerd's injection annotations, and the control plane's install manifests.
The webhook (`webhook`), `tulle inject` (`manifests`) and `tulle install` (`install`) all call `inject` and nothing
else adds a sidecar. It must never talk to a cluster.
"""

from tulle.inject.annotations import BadAnnotation
from tulle.inject.config import InjectConfig
from tulle.inject.pod import Injected, Owner, Skipped, inject

__all__ = ["BadAnnotation", "InjectConfig", "Injected", "Owner", "Skipped", "inject"]
