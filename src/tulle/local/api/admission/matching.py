"""Which webhooks a request goes to. Pure: configurations and the request in, webhooks in calling order out."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tulle.local.api.objects import Obj
from tulle.local.api.selectors import matches_labels, selector_of
from tulle.local.api.targets import AdmissionRequest

__all__ = ["Webhook", "matching_webhooks"]

_OWN = "admissionregistration.k8s.io"


@dataclass(frozen=True, slots=True)
class Webhook:
    """One webhook of a configuration, and the version in which it takes the object of a request."""

    spec: Obj
    version: str

    @property
    def name(self) -> str:
        """Return the webhook's name."""
        return str(self.spec["name"])

    @property
    def fails_closed(self) -> bool:
        """Tell whether a request is refused when the webhook cannot be asked."""
        return bool(self.spec.get("failurePolicy", "Fail") == "Fail")


def matching_webhooks(
    configurations: Iterable[Obj], request: AdmissionRequest, namespace: Obj | None
) -> Iterator[Webhook]:
    """Yield the webhooks that want to see a request, configurations in order of their names.

    `namespace`: the Namespace of the object (None for objects outside namespaces).
    """
    resource = request.target.resource
    if resource.group == _OWN or resource.plural.endswith("reviews"):
        return
    for configuration in sorted(configurations, key=lambda c: str(c["metadata"]["name"])):
        for spec in configuration.get("webhooks") or ():
            version = _wanted_version(spec, request)
            if version is not None and _selects(spec, request, namespace):
                yield Webhook(spec, version)


def _wanted_version(spec: Obj, request: AdmissionRequest) -> str | None:
    resource = request.target.resource
    asked = request.target.version or resource.version
    versions = [asked]
    if spec.get("matchPolicy", "Equivalent") == "Equivalent":
        versions += [version for version in resource.versions if version != asked]
    for version in versions:
        if any(_rule_matches(rule, request, version) for rule in spec.get("rules") or ()):
            return version
    return None


def _rule_matches(rule: Obj, request: AdmissionRequest, version: str) -> bool:
    target = request.target
    resource = target.resource
    operations = rule.get("operations") or ()
    scope = rule.get("scope") or "*"
    return bool(
        ("*" in operations or request.operation in operations)
        and _one_of(rule.get("apiGroups"), resource.group)
        and _one_of(rule.get("apiVersions"), version)
        and (scope == "*" or (scope == "Namespaced") is resource.namespaced)
        and any(
            _resource_matches(str(r), resource.plural, target.subresource or "")
            for r in rule.get("resources") or ()
        )
    )


def _one_of(values: Any, wanted: str) -> bool:
    return "*" in (values or ()) or wanted in (values or ())


def _resource_matches(pattern: str, plural: str, subresource: str) -> bool:
    wanted, _, sub = pattern.partition("/")
    return wanted in ("*", plural) and (sub == subresource or (sub == "*"))


def _selects(spec: Obj, request: AdmissionRequest, namespace: Obj | None) -> bool:
    if request.target.resource.key == "namespaces":
        namespace = request.obj or request.old
    if namespace is not None:
        labels = namespace["metadata"].get("labels")
        if not matches_labels(selector_of(spec.get("namespaceSelector")), labels):
            return False
    terms = selector_of(spec.get("objectSelector"))
    if not terms:
        return True
    subjects = [obj for obj in (request.obj, request.old) if obj is not None]
    return any(matches_labels(terms, (obj.get("metadata") or {}).get("labels")) for obj in subjects)
