"""Tulle: an ultralight service mesh that speaks Linkerd's API.

The layers, top to bottom (see docs/architecture.md): cli, local, tools / viz / control / inject, compile, kube, api.
"""

__version__ = "0.1.0"
