"""Networks of pods on one machine: who gets which address, how processes enter a pod, Service addresses, DNS.

`choose` decides between three networks from facts that `probe` gathers. `isolated` gives each pod a network
namespace (as root, or inside one unprivileged user namespace); `loopback` gives each an address in 127.0.0.0/8.
`launcher` is the small process that starts everything inside pods. The rest of the laptop sees `Network` only.
"""

from tulle.local.net.choose import Choice, Facts, Wish, choose
from tulle.local.net.model import (
    Backend,
    Mode,
    Mount,
    Network,
    NetworkError,
    PodKey,
    PodNetwork,
    Process,
    ProcessSpec,
    ServiceRoute,
    SpawnError,
    Target,
)

__all__ = [
    "Backend",
    "Choice",
    "Facts",
    "Mode",
    "Mount",
    "Network",
    "NetworkError",
    "PodKey",
    "PodNetwork",
    "Process",
    "ProcessSpec",
    "ServiceRoute",
    "SpawnError",
    "Target",
    "Wish",
    "choose",
]
