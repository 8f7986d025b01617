"""The identity behind a request, as authentication found it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tulle.local.api.objects import Obj

__all__ = ["ANONYMOUS", "MASTERS", "SYSTEM", "User", "service_account_user"]

MASTERS = "system:masters"
"""The group that may do everything."""


@dataclass(frozen=True, slots=True)
class User:
    """A name, its groups, and what the credential says besides."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def info(self) -> Obj:
        """Return the UserInfo object that reviews and admission webhooks carry."""
        info: Obj = {"username": self.name, "groups": list(self.groups)}
        if self.uid:
            info["uid"] = self.uid
        if self.extra:
            info["extra"] = {key: list(values) for key, values in self.extra.items()}
        return info


SYSTEM = User("system:tulle", (MASTERS, "system:authenticated"))
"""Tulle's own parts that share the API's process."""

ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))


def service_account_user(namespace: str, name: str, uid: str, extra: Mapping[str, tuple[str, ...]]) -> User:
    """Return the user that a ServiceAccount's token stands for."""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    return User(f"system:serviceaccount:{namespace}:{name}", groups, uid, extra)
