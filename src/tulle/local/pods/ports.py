"""The narrow ports of the node agent to the outside: the API, tokens, the machine. One real, one scripted fake each."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from tulle.clock import Clock
from tulle.local.api.objects import Obj
from tulle.local.controllers.cluster import ClusterApi
from tulle.local.controllers.events import Recorder
from tulle.local.controllers.store import Stores
from tulle.local.images import ImageMap
from tulle.local.net.model import Network

__all__ = ["Machine", "Surroundings", "Token", "TokenSource"]


@dataclass(frozen=True, slots=True)
class Token:
    """A bound service-account token and when it stops to be good."""

    text: str
    expires: datetime


class TokenSource(Protocol):
    """Makes service-account tokens bound to a pod: a cluster's TokenRequest."""

    async def __call__(self, pod: Obj, *, audiences: Sequence[str], seconds: int) -> Token:
        """Return a token for the pod's service account; no audiences mean the API's own."""
        ...


@dataclass(frozen=True, slots=True)
class Machine:
    """This machine as a node: its name, address, environment, and where programs start by default."""

    node_name: str = "tulle"
    address: str = "127.0.0.1"
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    directory: Path = field(default_factory=Path.cwd)
    allocatable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Everything that pods share."""

    api: ClusterApi
    stores: Stores
    network: Network
    images: ImageMap
    tokens: TokenSource
    recorder: Recorder
    clock: Clock
    state: Path
    """Folder for volumes and logs; everything in it belongs to the agent."""
    machine: Machine
