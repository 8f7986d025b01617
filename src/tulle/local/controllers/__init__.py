"""The controllers of a small cluster: they turn what objects ask for into other objects.

Each is a module with a pure `reconcile(key, stores, now) -> actions`; `manager` runs them all over shared stores,
`actions` carries out. They know the API through the narrow port in `cluster` and never a process or a socket.
"""

from tulle.local.controllers.running import Controllers

__all__ = ["Controllers"]
