"""From a request's credentials to its user: client certificate first, then bearer token, then impersonation."""

from collections.abc import Mapping, Sequence

from tulle.local.api.auth.certificates import certificate_user
from tulle.local.api.auth.rbac import Attributes, Policy
from tulle.local.api.auth.tokens import TokenAuthority
from tulle.local.api.auth.users import ANONYMOUS, User
from tulle.local.api.errors import forbidden, unauthorized

__all__ = ["Authenticator"]

Headers = Sequence[tuple[bytes, bytes]]


class Authenticator:
    """Recognises users. A request without credentials is anonymous; one with bad ones is refused."""

    def __init__(self, tokens: TokenAuthority, policy: Policy) -> None:
        self._tokens, self._policy = tokens, policy
        self._certificates: dict[bytes, User | None] = {}

    def authenticate(self, certificate: bytes | None, headers: Headers) -> User:
        """Return the user; raise 401 for credentials that are not accepted, 403 for impersonation not allowed."""
        values = {name: value.decode("latin-1") for name, value in headers}
        user = self._real_user(certificate, values)
        return self._impersonated(user, headers, values) if b"impersonate-user" in values else user

    def _real_user(self, certificate: bytes | None, values: Mapping[bytes, str]) -> User:
        if certificate is not None:
            named = self._named(certificate)
            if named is not None:
                return named
        scheme, _, token = values.get(b"authorization", "").partition(" ")
        if not scheme:
            return ANONYMOUS
        if scheme.lower() != "bearer":
            raise unauthorized()
        verified = self._tokens.verify(token.strip())
        if isinstance(verified, str):
            raise unauthorized()
        return verified.user

    def _named(self, certificate: bytes) -> User | None:
        if certificate not in self._certificates:
            if len(self._certificates) > 256:
                self._certificates.clear()
            self._certificates[certificate] = certificate_user(certificate)
        return self._certificates[certificate]

    def _impersonated(self, user: User, headers: Headers, values: Mapping[bytes, str]) -> User:
        name = values[b"impersonate-user"]
        groups = [value.decode("latin-1") for key, value in headers if key == b"impersonate-group"]
        self._may_impersonate(user, "users", name)
        for group in groups:
            self._may_impersonate(user, "groups", group)
        parts = name.split(":")
        if len(parts) == 4 and name.startswith("system:serviceaccount:") and not groups:
            groups = ["system:serviceaccounts", f"system:serviceaccounts:{parts[2]}"]
        if "system:authenticated" not in groups and name != "system:anonymous":
            groups.append("system:authenticated")
        return User(name, tuple(groups))

    def _may_impersonate(self, user: User, resource: str, name: str) -> None:
        allowed, _ = self._policy.authorize(user, Attributes("impersonate", "", resource, name=name))
        if not allowed:
            why = f'User "{user.name}" cannot impersonate resource "{resource}" in API group "" at the cluster scope'
            raise forbidden(resource, "", name, why)
