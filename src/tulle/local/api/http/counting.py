"""What the API counts about itself, as /metrics shows it: requests by verb, resource and code, watches, objects.

Label values come from the API's own tables, never from a request, so their number is bounded.
"""

from collections import Counter

from tulle.local.api.registry import Registry
from tulle.local.api.store import Store

__all__ = ["Counts"]


class Counts:
    """Counters of one server."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store, self._registry = store, registry
        self._requests: Counter[tuple[str, str, str, int]] = Counter()
        self.watches = 0

    def request(self, verb: str, group: str, plural: str, code: int) -> None:
        """Count one answered request; a resource that is not served counts as none."""
        known = any(resource.group == group and resource.plural == plural for resource in self._registry)
        self._requests[verb, group if known else "", plural if known else "", code] += 1

    def render(self) -> str:
        """Return the page in Prometheus' text form."""
        lines = ["# TYPE apiserver_request_total counter"]
        for (verb, group, plural, code), count in sorted(self._requests.items()):
            labels = f'verb="{verb}",group="{group}",resource="{plural}",code="{code}"'
            lines.append(f"apiserver_request_total{{{labels}}} {count}")
        lines += ["# TYPE apiserver_longrunning_requests gauge"]
        lines += [f'apiserver_longrunning_requests{{verb="watch"}} {self.watches}']
        lines += ["# TYPE apiserver_storage_objects gauge"]
        for resource in sorted(self._registry, key=lambda r: r.key):
            if "list" in resource.verbs and resource.group != "events.k8s.io":
                count = len(self._store.collection(resource.key).records)
                lines.append(f'apiserver_storage_objects{{resource="{resource.key}"}} {count}')
        return "\n".join(lines) + "\n"
