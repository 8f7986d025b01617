"""Pure functions from the World to what one proxy must do, as messages of the proxy API.

`outbound_policy`, `endpoints` and `profile` answer a client's proxy, `inbound_server` a server's; `validate` and
`route_status` name what will not be carried out. No clock, no file, no network: the same World gives the same answer.
"""

from tulle.compile.endpoints import Endpoints, Nearness, endpoints, nearness
from tulle.compile.inbound import inbound_server
from tulle.compile.mesh import ClientContext, Mesh
from tulle.compile.names import (
    AddressTarget,
    BadName,
    ServiceTarget,
    may_appear,
    parse_context,
    parse_workload,
    resolve,
)
from tulle.compile.outbound import outbound_policy
from tulle.compile.profile import profile

__all__ = [
    "AddressTarget",
    "BadName",
    "ClientContext",
    "Endpoints",
    "Mesh",
    "Nearness",
    "ServiceTarget",
    "endpoints",
    "inbound_server",
    "may_appear",
    "nearness",
    "outbound_policy",
    "parse_context",
    "parse_workload",
    "profile",
    "resolve",
]
