"""Label and field selectors: parsed once, matched purely.

Grammar of labels: `a=b`, `a==b`, `a!=b`, `a in (x,y)`, `a notin (x)`, `a`, `!a`, comma-separated, all must hold.
Fields know `=`, `==` and `!=` only, on the fields that a resource offers.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tulle.local.api.errors import bad_request
from tulle.local.api.objects import Obj, lookup

__all__ = [
    "EVERYTHING",
    "Requirement",
    "Selector",
    "matches_labels",
    "parse_fields",
    "parse_labels",
    "selector_of",
]

Operator = Literal["in", "notin", "exists", "absent"]

_KEY = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?(?:/[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_TERM = re.compile(
    rf"\s*(?:(?P<absent>!)\s*(?P<k0>{_KEY})|(?P<k1>{_KEY})\s+(?P<set>in|notin)\s*\((?P<values>[^()]*)\)"
    rf"|(?P<k2>{_KEY})\s*(?P<op>==|=|!=)\s*(?P<value>[-A-Za-z0-9_.]*)|(?P<k3>{_KEY}))\s*(?:,|$)"
)


@dataclass(frozen=True, slots=True)
class Requirement:
    """One term of a label selector."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether labels satisfy the term; `notin` holds for a missing label, as in Kubernetes."""
        match self.operator:
            case "in":
                return labels.get(self.key) in self.values and self.key in labels
            case "notin":
                return labels.get(self.key) not in self.values
            case "exists":
                return self.key in labels
            case "absent":
                return self.key not in labels


@dataclass(frozen=True, slots=True)
class Selector:
    """A compiled pair of label and field selector."""

    labels: tuple[Requirement, ...] = ()
    fields: tuple[tuple[str, bool, str], ...] = ()
    """(field, wanted equal, value)"""

    def matches(self, obj: Obj) -> bool:
        """Tell whether an object is selected."""
        if self.labels:
            labels = (obj.get("metadata") or {}).get("labels") or {}
            if not all(term.matches(labels) for term in self.labels):
                return False
        return all((field_value(obj, field) == value) is equal for field, equal, value in self.fields)

    def __bool__(self) -> bool:
        return bool(self.labels or self.fields)


EVERYTHING = Selector()


def matches_labels(requirements: Sequence[Requirement], labels: Mapping[str, str] | None) -> bool:
    """Tell whether labels satisfy every requirement."""
    return all(term.matches(labels or {}) for term in requirements)


def parse_labels(text: str) -> tuple[Requirement, ...]:
    """Parse a label selector; raise 400 that shows where it stops making sense."""
    terms: list[Requirement] = []
    position = 0
    while position < len(text) and text[position:].strip():
        found = _TERM.match(text, position)
        if found is None:
            raise bad_request(
                f'unable to parse requirement: found "{text[position:]}" in label selector "{text}"'
            )
        position = found.end()
        if found["absent"]:
            terms.append(Requirement(found["k0"], "absent"))
        elif found["set"]:
            values = frozenset(value.strip() for value in found["values"].split(","))
            terms.append(Requirement(found["k1"], "in" if found["set"] == "in" else "notin", values))
        elif found["op"]:
            operator: Operator = "notin" if found["op"] == "!=" else "in"
            terms.append(Requirement(found["k2"], operator, frozenset({found["value"]})))
        else:
            terms.append(Requirement(found["k3"], "exists"))
    return tuple(terms)


def selector_of(label_selector: Obj | None) -> tuple[Requirement, ...]:
    """Compile a LabelSelector object (matchLabels, matchExpressions); an empty one selects everything."""
    spec = label_selector or {}
    terms = [
        Requirement(key, "in", frozenset({value})) for key, value in (spec.get("matchLabels") or {}).items()
    ]
    words: dict[str, Operator] = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "absent"}
    for expression in spec.get("matchExpressions") or ():
        operator = words.get(expression.get("operator"))
        if operator is None:
            raise bad_request(f'"{expression.get("operator")}" is not a valid label selector operator')
        terms.append(Requirement(expression["key"], operator, frozenset(expression.get("values") or ())))
    return tuple(terms)


_FIELDS: dict[str, frozenset[str]] = {
    "pods": frozenset(
        {
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        }
    ),
    "events": frozenset(
        {
            f"involvedObject.{f}"
            for f in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
        }
        | {
            f"regarding.{f}"
            for f in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
        }
        | {"reason", "reportingComponent", "reportingController", "source", "type"}
    ),
    "secrets": frozenset({"type"}),
    "namespaces": frozenset({"status.phase"}),
    "nodes": frozenset({"spec.unschedulable"}),
    "services": frozenset({"spec.clusterIP", "spec.type"}),
    "replicasets": frozenset({"status.replicas"}),
    "replicationcontrollers": frozenset({"status.replicas"}),
    "jobs": frozenset({"status.successful"}),
}
_COMPUTED: dict[str, Callable[[Obj], Any]] = {
    "source": lambda event: lookup(event, ("source", "component")) or event.get("reportingComponent"),
    "status.successful": lambda job: lookup(job, ("status", "succeeded")) or 0,
    "spec.unschedulable": lambda node: lookup(node, ("spec", "unschedulable")) or False,
    "status.replicas": lambda owner: lookup(owner, ("status", "replicas")) or 0,
    "spec.hostNetwork": lambda pod: lookup(pod, ("spec", "hostNetwork")) or False,
}


def field_value(obj: Obj, field: str) -> str:
    """Return what a field selector compares: text, empty when the field is absent."""
    computed = _COMPUTED.get(field)
    value = computed(obj) if computed else lookup(obj, field.split("."))
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def parse_fields(text: str, plural: str, extra: Sequence[str] = ()) -> tuple[tuple[str, bool, str], ...]:
    """Parse a field selector of a resource; raise 400 that names a field it does not offer.

    `extra`: the selectable fields that a CRD declares (dotted, without the leading dot).
    """
    terms: list[tuple[str, bool, str]] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        found = re.fullmatch(r"([^=!]+)(==|=|!=)(.*)", part)
        if found is None:
            raise bad_request(f'invalid selector: "{text}"; can\'t understand "{part}"')
        field = found[1].strip()
        known = (
            field in ("metadata.name", "metadata.namespace")
            or field in _FIELDS.get(plural, ())
            or field in extra
        )
        if not known:
            raise bad_request(f"field label not supported: {field}")
        terms.append((field, found[2] != "!=", found[3].strip()))
    return tuple(terms)
