"""The kinds that answer a question about users: token reviews, access reviews, "who am I". They store nothing."""

from collections.abc import Iterable

from tulle.clock import Clock
from tulle.local.api.auth.rbac import Attributes, Policy
from tulle.local.api.auth.tokens import ISSUER, MAX_SECONDS, MIN_SECONDS, TokenAuthority
from tulle.local.api.auth.users import User
from tulle.local.api.errors import Cause, bad_request, conflict, invalid, not_found
from tulle.local.api.lifecycle import timestamp
from tulle.local.api.objects import Obj, lookup
from tulle.local.api.store import Store

__all__ = ["Reviews"]


class Reviews:
    """Answers reviews from tokens, roles and bindings."""

    def __init__(self, store: Store, tokens: TokenAuthority, policy: Policy, clock: Clock) -> None:
        self._store, self._tokens, self._policy, self._clock = store, tokens, policy, clock

    def answer(self, plural: str, namespace: str | None, review: Obj, user: User) -> Obj:
        """Return a review with its status filled in."""
        match plural:
            case "tokenreviews":
                status = self._token(review)
            case "selfsubjectreviews":
                status = {"userInfo": user.info()}
            case "selfsubjectrulesreviews":
                status = self._rules(review, user)
            case "selfsubjectaccessreviews":
                status = self._access(review, user, None)
            case "subjectaccessreviews":
                status = self._access(review, _subject(review), None)
            case _:
                status = self._access(review, _subject(review), namespace or "")
        metadata = {
            key: value for key, value in (review.get("metadata") or {}).items() if key != "managedFields"
        }
        return {**review, "metadata": {"creationTimestamp": None, **metadata}, "status": status}

    def _token(self, review: Obj) -> Obj:
        token = lookup(review, ("spec", "token"))
        if not isinstance(token, str) or not token:
            raise bad_request("token is required for TokenReview in authentication")
        asked = lookup(review, ("spec", "audiences")) or []
        verified = self._tokens.verify(token, asked)
        if isinstance(verified, str):
            return {"user": {}, "error": f"[invalid bearer token, {verified}]"}
        return {"authenticated": True, "user": verified.user.info(), "audiences": list(verified.audiences)}

    def _access(self, review: Obj, user: User, namespace: str | None) -> Obj:
        spec = review.get("spec") or {}
        about, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
        if bool(about) == bool(path):
            detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
            cause = Cause.invalid("spec.resourceAttributes", "", detail)
            raise invalid(review.get("kind", ""), "authorization.k8s.io", "", [cause])
        if path:
            wanted = Attributes(path.get("verb", ""), path=path.get("path", ""))
        else:
            assert about is not None
            if namespace is not None and about.get("namespace") != namespace:
                raise bad_request(f"must match the namespace: {namespace}")
            wanted = Attributes(
                about.get("verb", ""),
                about.get("group", ""),
                about.get("resource", ""),
                about.get("subresource", ""),
                about.get("name", ""),
                about.get("namespace", ""),
            )
        allowed, reason = self._policy.authorize(user, wanted)
        return {"allowed": allowed, **({"reason": reason} if reason else {})}

    def _rules(self, review: Obj, user: User) -> Obj:
        namespace = lookup(review, ("spec", "namespace"))
        if not namespace:
            raise bad_request("no namespace on request")
        resources: list[Obj] = []
        paths: list[Obj] = []
        for rule, _ in self._policy.rules(user, namespace):
            if rule.get("nonResourceURLs"):
                paths.append({"verbs": rule["verbs"], "nonResourceURLs": rule["nonResourceURLs"]})
            else:
                kept = ("verbs", "apiGroups", "resources", "resourceNames")
                resources.append({key: rule[key] for key in kept if rule.get(key)})
        return {"resourceRules": resources, "nonResourceRules": paths, "incomplete": False}

    def request_token(self, namespace: str, name: str, request: Obj) -> Obj:
        """Carry out a TokenRequest for a ServiceAccount; raise 404, 409 or 422."""
        record = self._store.get("serviceaccounts", namespace, name)
        if record is None:
            raise not_found("serviceaccounts", "", name)
        spec = request.get("spec") or {}
        seconds = spec.get("expirationSeconds")
        seconds = 3600 if seconds is None else seconds
        if not isinstance(seconds, int) or not MIN_SECONDS <= seconds <= MAX_SECONDS:
            detail = (
                "may not specify a duration less than 10 minutes" if seconds < MIN_SECONDS else "too long"
            )
            cause = Cause.invalid("spec.expirationSeconds", seconds, detail)
            raise invalid("TokenRequest", "authentication.k8s.io", name, [cause])
        audiences = _texts(spec.get("audiences")) or [ISSUER]
        bound = self._bound(namespace, name, spec.get("boundObjectRef"))
        token, expires = self._tokens.issue(record.obj, audiences, seconds, bound)
        end = self._clock.now().fromtimestamp(expires, self._clock.now().tzinfo)
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "creationTimestamp": timestamp(self._clock.now()),
            },
            "spec": {**spec, "audiences": audiences, "expirationSeconds": seconds},
            "status": {"token": token, "expirationTimestamp": timestamp(end)},
        }

    def _bound(self, namespace: str, account: str, reference: Obj | None) -> Obj | None:
        if reference is None:
            return None
        kinds = {"Pod": "pods", "Secret": "secrets"}
        plural, name = kinds.get(reference.get("kind", "")), reference.get("name", "")
        if plural is None:
            raise bad_request(f"cannot bind token to object of type {reference.get('kind')}")
        record = self._store.get(plural, namespace, name)
        if record is None:
            raise not_found(plural, "", name)
        uid = record.obj["metadata"]["uid"]
        if reference.get("uid") not in (None, "", uid):
            why = (
                f"the UID in the bound object reference ({reference['uid']}) does not match the UID in record"
            )
            raise conflict(plural, "", name, why)
        owner = lookup(record.obj, ("spec", "serviceAccountName"))
        if plural == "pods" and (owner or "default") != account:
            raise bad_request(
                f'cannot bind token for serviceaccount "{account}" to pod running with different serviceaccount name.'
            )
        return record.obj


def _subject(review: Obj) -> User:
    spec = review.get("spec") or {}
    if not spec.get("user") and not spec.get("groups"):
        cause = Cause.invalid("spec.user", "", "at least one of user or group must be specified")
        raise invalid(review.get("kind", ""), "authorization.k8s.io", "", [cause])
    return User(spec.get("user", ""), tuple(_texts(spec.get("groups"))), spec.get("uid", ""))


def _texts(values: Iterable[str] | None) -> list[str]:
    return [str(value) for value in values or ()]
