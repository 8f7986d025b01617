"""Rules of ConfigMaps, Secrets, roles, bindings and webhook configurations. Pure."""

import base64
import binascii
import re
from collections.abc import Iterator

from tulle.local.api.errors import Cause
from tulle.local.api.objects import Obj, lookup
from tulle.local.api.validation.names import is_dns_subdomain

__all__ = ["check_binding", "check_config_map", "check_role", "check_secret", "check_webhooks"]

MAX_DATA = 1024 * 1024
"""Bytes of one ConfigMap's or Secret's data."""

_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_KEY_TEXT = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"


def _check_keys(data: Obj | None, path: str) -> Iterator[Cause]:
    for key in data or ():
        if not _KEY.fullmatch(key) or len(key) > 253 or key in (".", ".."):
            yield Cause.invalid(f"{path}[{key}]", key, _KEY_TEXT)


def _check_immutable(obj: Obj, old: Obj | None, fields: tuple[str, ...]) -> Iterator[Cause]:
    if old is None or not old.get("immutable"):
        return
    if not obj.get("immutable"):
        yield Cause.forbidden("immutable", "field is immutable when `immutable` is set")
    for field in fields:
        if obj.get(field) != old.get(field):
            yield Cause.forbidden(field, "field is immutable when `immutable` is set")


def check_config_map(obj: Obj, old: Obj | None) -> Iterator[Cause]:
    """Yield what is wrong with a ConfigMap."""
    yield from _check_keys(obj.get("data"), "data")
    yield from _check_keys(obj.get("binaryData"), "binaryData")
    size = sum(len(str(value)) for part in ("data", "binaryData") for value in (obj.get(part) or {}).values())
    if size > MAX_DATA:
        yield Cause("", "FieldValueTooLong", f"Too long: may not be more than {MAX_DATA} bytes")
    yield from _check_immutable(obj, old, ("data", "binaryData"))


def check_secret(obj: Obj, old: Obj | None) -> Iterator[Cause]:
    """Yield what is wrong with a Secret."""
    data = obj.get("data") or {}
    yield from _check_keys(data, "data")
    for key, value in data.items():
        try:
            base64.b64decode(str(value), validate=True)
        except (ValueError, binascii.Error):
            yield Cause.invalid(f"data[{key}]", "<not shown>", "illegal base64 data")
    if sum(len(str(value)) for value in data.values()) * 3 // 4 > MAX_DATA:
        yield Cause("data", "FieldValueTooLong", f"Too long: may not be more than {MAX_DATA} bytes")
    kind = obj.get("type")
    if old is not None and old.get("type") != kind:
        yield Cause.invalid("type", kind, "field is immutable")
    needed = {
        "kubernetes.io/tls": ("tls.crt", "tls.key"),
        "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    }
    for key in needed.get(str(kind), ()):
        if key not in data:
            yield Cause.required(f"data[{key}]")
    yield from _check_immutable(obj, old, ("data",))


def check_role(obj: Obj, old: Obj | None) -> Iterator[Cause]:
    """Yield what is wrong with a Role or ClusterRole."""
    for index, rule in enumerate(obj.get("rules") or ()):
        where = f"rules[{index}]"
        if not rule.get("verbs"):
            yield Cause.required(f"{where}.verbs", "verbs must contain at least one value")
        if rule.get("nonResourceURLs"):
            if obj.get("kind") == "Role":
                detail = "namespaced rules cannot apply to non-resource URLs"
                yield Cause.invalid(f"{where}.nonResourceURLs", rule["nonResourceURLs"], detail)
            continue
        if not rule.get("apiGroups"):
            yield Cause.required(f"{where}.apiGroups", "resource rules must supply at least one api group")
        if not rule.get("resources"):
            yield Cause.required(f"{where}.resources", "resource rules must supply at least one resource")


def check_binding(obj: Obj, old: Obj | None) -> Iterator[Cause]:
    """Yield what is wrong with a RoleBinding or ClusterRoleBinding."""
    reference = obj["roleRef"]
    kinds = ["ClusterRole"] if obj.get("kind") == "ClusterRoleBinding" else ["Role", "ClusterRole"]
    if reference.get("kind") not in kinds:
        yield Cause.unsupported("roleRef.kind", reference.get("kind"), kinds)
    if old is not None and old["roleRef"] != reference:
        yield Cause.invalid("roleRef", str(reference), "cannot change roleRef")
    for index, subject in enumerate(obj.get("subjects") or ()):
        where = f"subjects[{index}]"
        if subject.get("kind") not in ("ServiceAccount", "User", "Group"):
            yield Cause.unsupported(f"{where}.kind", subject.get("kind"), ["ServiceAccount", "User", "Group"])
        if subject.get("kind") == "ServiceAccount" and not subject.get("namespace") and len(kinds) == 1:
            yield Cause.required(f"{where}.namespace")


def check_webhooks(obj: Obj, old: Obj | None) -> Iterator[Cause]:
    """Yield what is wrong with a webhook configuration, and what this API cannot carry out of it."""
    seen: set[str] = set()
    for index, webhook in enumerate(obj.get("webhooks") or ()):
        where = f"webhooks[{index}]"
        name = str(webhook.get("name") or "")
        if not is_dns_subdomain(name) or name.count(".") < 2:
            yield Cause.invalid(
                f"{where}.name", name, "should be a domain with at least three segments separated by dots"
            )
        if name in seen:
            yield Cause.duplicate(f"{where}.name", name)
        seen.add(name)
        yield from _check_webhook(webhook, where)


def _check_webhook(webhook: Obj, where: str) -> Iterator[Cause]:
    if "v1" not in (webhook.get("admissionReviewVersions") or ()):
        detail = "must include at least one of v1"
        yield Cause.invalid(
            f"{where}.admissionReviewVersions", webhook.get("admissionReviewVersions"), detail
        )
    if webhook.get("sideEffects") not in ("None", "NoneOnDryRun"):
        yield Cause.unsupported(f"{where}.sideEffects", webhook.get("sideEffects"), ["None", "NoneOnDryRun"])
    for field, values in (
        ("failurePolicy", ["Fail", "Ignore"]),
        ("matchPolicy", ["Equivalent", "Exact"]),
        ("reinvocationPolicy", ["IfNeeded", "Never"]),
    ):
        if webhook.get(field) is not None and webhook[field] not in values:
            yield Cause.unsupported(f"{where}.{field}", webhook[field], values)
    seconds = webhook.get("timeoutSeconds")
    if not isinstance(seconds, int) or not 1 <= seconds <= 30:
        yield Cause.invalid(
            f"{where}.timeoutSeconds", seconds, "the timeout value must be between 1 and 30 seconds"
        )
    if webhook.get("matchConditions"):
        yield Cause.forbidden(f"{where}.matchConditions", "this API does not evaluate CEL expressions")
    config = webhook.get("clientConfig") or {}
    url, service = config.get("url"), config.get("service")
    if bool(url) == bool(service):
        yield Cause.required(f"{where}.clientConfig", "exactly one of url or service is required")
    elif url and not str(url).startswith("https://"):
        yield Cause.invalid(f"{where}.clientConfig.url", url, "'https' is the only allowed URL scheme")
    path = lookup(service, ("path",))
    if path is not None and not str(path).startswith("/"):
        yield Cause.invalid(f"{where}.clientConfig.service.path", path, "must start with a '/'")
    for index, rule in enumerate(webhook.get("rules") or ()):
        for field in ("operations", "apiGroups", "apiVersions", "resources"):
            if not rule.get(field):
                yield Cause.required(f"{where}.rules[{index}].{field}")
