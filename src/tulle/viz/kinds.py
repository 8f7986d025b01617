"""The kinds of resources that have golden metrics, by all the names that people use for them."""

from tulle.kube.words import WORKLOAD_KINDS

__all__ = ["KINDS", "UnknownKind", "kind_named"]

# Every name by which kubectl knows a kind that can be asked for.
KINDS: dict[str, tuple[str, ...]] = {
    **WORKLOAD_KINDS,
    "Service": ("svc", "service", "services"),
    "Namespace": ("ns", "namespace", "namespaces"),
    # Whatever pods belong to, of all kinds.
    "Workload": ("workload", "workloads"),
}


class UnknownKind(ValueError):
    """No such kind can be asked for."""


def kind_named(text: str) -> str:
    """Return the kind that a word such as `deploy` or `pods` means. Raises UnknownKind."""
    for kind, names in KINDS.items():
        if text.lower() in names:
            return kind
    raise UnknownKind(f"{text!r} is none of {', '.join(names[0] for names in KINDS.values())}")
