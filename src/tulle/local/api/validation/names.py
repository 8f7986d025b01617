"""Names, labels and annotations: what Kubernetes accepts, and the sentence it refuses with. Pure."""

import re
from collections.abc import Iterator
from typing import Any

from tulle.local.api.errors import Cause
from tulle.local.api.objects import Obj

__all__ = ["check_labels", "check_metadata", "is_dns_label", "is_dns_subdomain", "qualified_name_problem"]

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_SERVICE = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")

LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
SERVICE_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)
QUALIFIED_TEXT = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)

MAX_ANNOTATIONS = 256 * 1024
"""Bytes of all annotations of one object together."""

_LABEL_NAMED = frozenset({"namespaces"})
_SERVICE_NAMED = frozenset({"services"})
_FREE_NAMED = frozenset({"roles", "clusterroles", "rolebindings", "clusterrolebindings"})


def is_dns_label(value: str) -> bool:
    """Tell whether a value is a DNS label of at most 63 characters."""
    return len(value) <= 63 and _LABEL.fullmatch(value) is not None


def is_dns_subdomain(value: str) -> bool:
    """Tell whether a value is a DNS name of at most 253 characters."""
    return len(value) <= 253 and _SUBDOMAIN.fullmatch(value) is not None


def qualified_name_problem(key: str) -> str | None:
    """Return what is wrong with a label or annotation key, or None."""
    prefix, slash, name = key.rpartition("/")
    if slash and not is_dns_subdomain(prefix):
        return f"prefix part {SUBDOMAIN_TEXT}"
    if not name:
        return "name part must be non-empty"
    if len(name) > 63:
        return "name part must be no more than 63 bytes"
    return None if _QUALIFIED.fullmatch(name) else QUALIFIED_TEXT


def check_labels(labels: Any, path: str) -> Iterator[Cause]:
    """Yield what is wrong with a map of labels."""
    for key, value in (labels or {}).items():
        problem = qualified_name_problem(key)
        if problem:
            yield Cause.invalid(path, key, problem)
        if len(value) > 63:
            yield Cause.invalid(path, value, "must be no more than 63 bytes")
        elif value and not _QUALIFIED.fullmatch(value):
            yield Cause.invalid(path, value, VALUE_TEXT)


def check_metadata(plural: str, metadata: Obj) -> Iterator[Cause]:
    """Yield what is wrong with an object's metadata."""
    name = metadata.get("name") or ""
    yield from _check_name(plural, name)
    yield from check_labels(metadata.get("labels"), "metadata.labels")
    size = 0
    for key, value in (metadata.get("annotations") or {}).items():
        problem = qualified_name_problem(key.lower())
        if problem:
            yield Cause.invalid("metadata.annotations", key, problem)
        size += len(key) + len(value)
    if size > MAX_ANNOTATIONS:
        yield Cause(
            "metadata.annotations",
            "FieldValueTooLong",
            f"Too long: may not be more than {MAX_ANNOTATIONS} bytes",
        )
    for index, owner in enumerate(metadata.get("ownerReferences") or ()):
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(field):
                detail = f"{field} must not be empty"
                yield Cause.invalid(f"metadata.ownerReferences[{index}].{field}", "", detail)
    if sum(bool(owner.get("controller")) for owner in metadata.get("ownerReferences") or ()) > 1:
        detail = "Only one reference can have Controller set to true"
        yield Cause.invalid("metadata.ownerReferences", "", detail)
    for finalizer in metadata.get("finalizers") or ():
        problem = qualified_name_problem(finalizer)
        if problem:
            yield Cause.invalid("metadata.finalizers", finalizer, problem)
        elif "/" not in finalizer and finalizer not in ("orphan", "foregroundDeletion", "kubernetes"):
            detail = "name is neither a standard finalizer name nor is it fully qualified"
            yield Cause.invalid("metadata.finalizers[0]", finalizer, detail)


def _check_name(plural: str, name: str) -> Iterator[Cause]:
    if plural in _SERVICE_NAMED:
        if len(name) > 63 or not _SERVICE.fullmatch(name):
            yield Cause.invalid("metadata.name", name, SERVICE_TEXT)
    elif plural in _LABEL_NAMED:
        if not is_dns_label(name):
            yield Cause.invalid("metadata.name", name, LABEL_TEXT)
    elif plural in _FREE_NAMED:
        if not name or name in (".", "..") or "/" in name or "%" in name:
            yield Cause.invalid("metadata.name", name, "may not be '.' or '..' or contain '/' or '%'")
    elif not is_dns_subdomain(name):
        yield Cause.invalid("metadata.name", name, SUBDOMAIN_TEXT)
