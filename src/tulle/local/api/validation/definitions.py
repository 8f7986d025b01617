"""Rules of CustomResourceDefinitions. Pure."""

from collections.abc import Iterator

from tulle.local.api.errors import Cause
from tulle.local.api.objects import Obj
from tulle.local.api.structural import structural_problems
from tulle.local.api.validation.names import is_dns_label, is_dns_subdomain

__all__ = ["check_definition"]


def check_definition(obj: Obj, old: Obj | None) -> Iterator[Cause]:
    """Yield what is wrong with a definition."""
    spec = obj["spec"]
    names, group = spec["names"], spec["group"]
    expected = f"{names.get('plural')}.{group}"
    if obj["metadata"]["name"] != expected:
        detail = 'must be spec.names.plural+"."+spec.group'
        yield Cause.invalid("metadata.name", obj["metadata"]["name"], detail)
    if not is_dns_subdomain(group) or "." not in group:
        yield Cause.invalid("spec.group", group, "should be a domain with at least one dot")
    if spec.get("scope") not in ("Cluster", "Namespaced"):
        yield Cause.unsupported("spec.scope", spec.get("scope"), ["Cluster", "Namespaced"])
    for field in ("plural", "singular"):
        if names.get(field) and not is_dns_label(str(names[field])):
            yield Cause.invalid(f"spec.names.{field}", names[field], "must be a DNS label")
    if not str(names.get("kind") or "").isalnum():
        yield Cause.invalid("spec.names.kind", names.get("kind"), "must be a DNS label, may have mixed case")
    if (spec.get("conversion") or {}).get("strategy", "None") != "None":
        yield Cause.unsupported("spec.conversion.strategy", spec["conversion"]["strategy"], ["None"])
    if old is not None:
        for field in ("group", "scope"):
            if old["spec"].get(field) != spec.get(field):
                yield Cause.invalid(f"spec.{field}", spec.get(field), "field is immutable")
    yield from _check_versions(spec.get("versions") or [])


def _check_versions(versions: list[Obj]) -> Iterator[Cause]:
    names = [version.get("name") for version in versions]
    if not versions:
        yield Cause.required("spec.versions", "must have at least one version")
    elif sum(bool(version.get("storage")) for version in versions) != 1:
        yield Cause.invalid("spec.versions", names, "must have exactly one version marked as storage version")
    for index, version in enumerate(versions):
        where = f"spec.versions[{index}]"
        if not is_dns_label(str(version.get("name"))):
            yield Cause.invalid(f"{where}.name", version.get("name"), "must be a DNS label")
        if names.count(version.get("name")) > 1:
            yield Cause.duplicate(f"{where}.name", version.get("name"))
        raw = (version.get("schema") or {}).get("openAPIV3Schema")
        if raw is None:
            yield Cause.required(f"{where}.schema.openAPIV3Schema", "schemas are required")
            continue
        path = f"{where}.schema.openAPIV3Schema"
        if raw.get("type") != "object":
            yield Cause.invalid(f"{path}.type", raw.get("type"), "must be object at the root")
        yield from structural_problems(raw, path)
        for number, column in enumerate(version.get("additionalPrinterColumns") or ()):
            here = f"{where}.additionalPrinterColumns[{number}]"
            kinds = ["integer", "number", "string", "boolean", "date"]
            if column.get("type") not in kinds:
                yield Cause.unsupported(f"{here}.type", column.get("type"), kinds)
            if not str(column.get("jsonPath", "")).startswith("."):
                yield Cause.invalid(
                    f"{here}.jsonPath", column.get("jsonPath"), "must be a simple json path starting with ."
                )
