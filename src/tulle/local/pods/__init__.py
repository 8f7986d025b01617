"""The node agent: pods as processes of this machine.

`machine` decides (pure: facts in, commands out), `worker` carries out for one pod, `agent` has a worker per pod and
answers the API's questions for logs and commands. What a container becomes is decided in `launch`, `environment`,
`volumes` and `loopback`, all pure; processes, addresses and mounts are made by `tulle.local.net`.
"""

from tulle.local.pods.agent import NodeAgent
from tulle.local.pods.ports import Machine, Surroundings, Token, TokenSource

__all__ = ["Machine", "NodeAgent", "Surroundings", "Token", "TokenSource"]
