"""What the admission webhook asks of a running control plane: configuration, namespaces, owners, and what is refused.

Lives with the command that puts the parts together, for the injector and the control plane do not know each other.
"""

from pathlib import Path

import msgspec

from tulle.compile.validate import problems
from tulle.inject import InjectConfig, Owner
from tulle.inject.install.values import inject_config, read_values
from tulle.inject.pod import Obj
from tulle.kube import kinds
from tulle.kube.client import ApiError, Client, Unreachable
from tulle.kube.world import World

__all__ = ["AdmissionSource"]

OWNERS = {"ReplicaSet": (kinds.REPLICA_SET, "deployment"), "Job": (kinds.JOB, "cronjob")}


class _Reference(msgspec.Struct):
    kind: str = ""
    name: str = ""
    controller: bool | None = None


class AdmissionSource:
    """Reads mounted files when they change, and the World before it asks the API."""

    def __init__(self, world: World, client: Client, values: Path, roots: Path) -> None:
        self._world, self._client, self._files = world, client, (values, roots)
        self._read_at: tuple[int, int] | None = None
        self._config: InjectConfig | None = None

    def config(self) -> InjectConfig:
        """Return the values in force. Raises OSError when they were never readable."""
        values, roots = self._files
        read_at = (values.stat().st_mtime_ns, roots.stat().st_mtime_ns)
        if self._config is None or read_at != self._read_at:
            self._config = inject_config(read_values(values.read_text()), roots.read_text())
            self._read_at = read_at
        return self._config

    async def namespace(self, name: str) -> Obj:
        """Return the namespace; one that the World does not know yet is asked of the API."""
        known = self._world.namespace(name)
        if known is not None:
            return {"metadata": {"name": name, "labels": known.labels, "annotations": known.annotations}}
        try:
            found: Obj = await self._client.get(f"/api/v1/namespaces/{name}")
        except (ApiError, Unreachable):
            return {"metadata": {"name": name}}
        return found

    async def owner(self, namespace: str, reference: Obj) -> Owner:
        """Follow a ReplicaSet or a Job to the Deployment or CronJob that made it."""
        kind, name = str(reference.get("kind", "")), str(reference.get("name", ""))
        if kind not in OWNERS:
            return Owner(kind.lower(), name)
        between, above = OWNERS[kind]
        view = self._world.peek(between, namespace, name)
        if view is not None:
            refs = [_Reference(r.kind, r.name, r.controller) for r in view.metadata.owner_references or ()]
        else:
            try:
                found = await self._client.get(f"{between.path('v1', namespace)}/{name}")
            except (ApiError, Unreachable):
                return Owner(kind.lower(), name)
            refs = msgspec.convert(
                (found.get("metadata") or {}).get("ownerReferences") or [], list[_Reference]
            )
        parent = next((ref for ref in refs if ref.kind.lower() == above), None)
        return Owner(above, parent.name) if parent is not None else Owner(kind.lower(), name)

    def problems(self, obj: Obj) -> list[str]:
        """Return what would not be carried out and is therefore refused."""
        return [str(problem) for problem in problems(obj) if problem.refused]
