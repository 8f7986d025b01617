"""The world: the process in which a mesh lives, and in the isolated networks its namespaces.

`tulle up` starts `python -m tulle.local.world`, which becomes two processes. The **keeper** (`keeper`) stays
outside: it enters the namespaces, has the world as its child, and when `tulle up` ends, however it ends, it ends
everything. The **world** (`runtime`) is the first process of the PID namespace: embedded Kubernetes API,
controllers, pod runner, DNS and Service addresses in one asyncio program; the launcher of pods is its child.

    tulle up ── keeper ─┤ namespaces ├─ world ── launcher ── containers
"""
