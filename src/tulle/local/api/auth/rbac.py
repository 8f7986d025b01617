"""Role-based access control as a pure function of the roles and bindings there are."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tulle.local.api.auth.users import MASTERS, User
from tulle.local.api.objects import Obj
from tulle.local.api.store import Store

__all__ = ["Attributes", "Policy", "allows"]

_GROUP = "rbac.authorization.k8s.io"


@dataclass(frozen=True, slots=True)
class Attributes:
    """What is to be done. `path` for requests that are not about resources, else empty."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""
    namespace: str = ""
    path: str = ""


def allows(rule: Obj, wanted: Attributes) -> bool:
    """Tell whether one rule of a role allows a request."""
    if not _matches(rule.get("verbs"), wanted.verb):
        return False
    if wanted.path:
        return any(_path_matches(pattern, wanted.path) for pattern in rule.get("nonResourceURLs") or ())
    if not _matches(rule.get("apiGroups"), wanted.group):
        return False
    resource = f"{wanted.resource}/{wanted.subresource}" if wanted.subresource else wanted.resource
    resources = rule.get("resources") or ()
    if not (
        "*" in resources
        or resource in resources
        or (wanted.subresource and f"*/{wanted.subresource}" in resources)
    ):
        return False
    names = rule.get("resourceNames") or ()
    return not names or wanted.name in names


def _matches(patterns: Iterable[str] | None, value: str) -> bool:
    return any(pattern in ("*", value) for pattern in patterns or ())


def _path_matches(pattern: str, path: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern[:-1]))


class Policy:
    """The roles and bindings in a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def authorize(self, user: User, wanted: Attributes) -> tuple[bool, str]:
        """Tell whether a user may do something, and by which binding."""
        if MASTERS in user.groups:
            return True, ""
        for rule, reason in self.rules(user, wanted.namespace):
            if allows(rule, wanted):
                return True, reason
        return False, ""

    def rules(self, user: User, namespace: str) -> Iterator[tuple[Obj, str]]:
        """Yield the rules that hold for a user: the cluster's, and those of a namespace if one is given."""
        if MASTERS in user.groups:
            everything = {"verbs": ["*"]}
            yield {**everything, "apiGroups": ["*"], "resources": ["*"]}, "system:masters"
            yield {**everything, "nonResourceURLs": ["*"]}, "system:masters"
        for kind, scope in (("clusterrolebindings", ""), ("rolebindings", namespace)):
            if kind == "rolebindings" and not namespace:
                continue
            for (where, name), record in sorted(self._store.collection(f"{kind}.{_GROUP}").records.items()):
                binding = record.obj
                if where != scope or not any(
                    _is_subject(user, s, where) for s in binding.get("subjects") or ()
                ):
                    continue
                reference = binding["roleRef"]
                for rule in self._role_rules(reference, where):
                    shown = f"{where}/{name}" if where else name
                    label = "RoleBinding" if where else "ClusterRoleBinding"
                    yield (
                        rule,
                        f'RBAC: allowed by {label} "{shown}" of {reference["kind"]} "{reference["name"]}"',
                    )

    def _role_rules(self, reference: Obj, namespace: str) -> list[Obj]:
        cluster = reference["kind"] == "ClusterRole"
        kind, where = ("clusterroles", None) if cluster else ("roles", namespace)
        record = self._store.get(f"{kind}.{_GROUP}", where, reference["name"])
        return list(record.obj.get("rules") or ()) if record else []


def _is_subject(user: User, subject: Obj, namespace: str) -> bool:
    match subject.get("kind"):
        case "User":
            return bool(subject.get("name") == user.name)
        case "Group":
            return subject.get("name") in user.groups
        case "ServiceAccount":
            where = subject.get("namespace") or namespace
            return user.name == f"system:serviceaccount:{where}:{subject.get('name')}"
        case _:
            return False
