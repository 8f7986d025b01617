"""What a URL and its headers ask for. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias
from urllib.parse import parse_qs

from tulle.local.api.errors import ApiError, Cause, bad_request, invalid, no_such_resource

__all__ = ["Accepted", "Form", "Query", "ResourcePath", "negotiate", "parse_path", "verb_of"]

Form: TypeAlias = Literal["object", "table", "metadata"]


@dataclass(frozen=True, slots=True)
class ResourcePath:
    """A resource, perhaps one object of it, perhaps a subresource with a rest (`proxy/path`)."""

    group: str
    version: str
    plural: str
    namespace: str | None = None
    name: str = ""
    subresource: str = ""
    rest: str = ""
    watch: bool = False


def parse_path(path: str) -> ResourcePath | None:
    """Read a request's path; None for paths that name no resource (discovery, health). Raises 404 for half paths."""
    parts = [part for part in path.split("/") if part]
    if len(parts) >= 3 and parts[0] == "api":
        group, version, rest = "", parts[1], parts[2:]
    elif len(parts) >= 4 and parts[0] == "apis":
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    watch = rest[0] == "watch" and len(rest) > 1
    if watch:
        rest = rest[1:]
    namespace: str | None = None
    if rest[0] == "namespaces" and len(rest) > 2 and not (group == "" and rest[2] in ("status", "finalize")):
        namespace, rest = rest[1], rest[2:]
    if not rest:
        raise no_such_resource()
    plural, name, sub = [*rest[:3], "", ""][:3]
    tail = "/".join(rest[3:])
    if sub == "proxy":
        marker = f"/{plural}/{name}/proxy"
        tail = path.partition(marker)[2]
    elif tail:
        raise no_such_resource()
    return ResourcePath(group, version, plural, namespace, name, sub, tail, watch)


class Query:
    """The parameters of a URL, read as what they should be; raises 400 for what they are not."""

    def __init__(self, query: bytes) -> None:
        try:
            self._values = parse_qs(query.decode("ascii"), keep_blank_values=True, max_num_fields=1000)
        except ValueError as error:
            raise bad_request(f"the query of the URL cannot be read: {error}") from error

    def text(self, name: str, default: str = "") -> str:
        """Return a parameter's first value."""
        return self._values.get(name, [default])[0]

    def texts(self, name: str) -> list[str]:
        """Return all the values of a parameter."""
        return self._values.get(name, [])

    def flag(self, name: str) -> bool:
        """Return whether a parameter says yes; an empty one does."""
        return name in self._values and self.text(name).lower() in ("", "1", "true", "t", "yes")

    def number(self, name: str) -> int | None:
        """Return a whole number, or None when it is absent."""
        value = self.text(name)
        if not value:
            return None
        if not value.lstrip("-").isdigit() or not value.isascii() or len(value) > 18:
            raise bad_request(f'invalid value for parameter {name}: "{value}" is not a whole number')
        return int(value)

    def names(self) -> set[str]:
        """Return the names of the parameters that are there."""
        return set(self._values)

    @property
    def dry_run(self) -> bool:
        """Return whether nothing is to be stored."""
        values = set(self.texts("dryRun"))
        if values - {"All"}:
            cause = Cause.unsupported("dryRun", sorted(values)[0], ["All"])
            raise invalid("CreateOptions", "meta.k8s.io", "", [cause])
        return bool(values)


@dataclass(frozen=True, slots=True)
class Accepted:
    """How the client wants the answer."""

    form: Form = "object"
    yaml: bool = False
    aggregated_discovery: str = ""
    """The version of aggregated discovery that the client understands, or empty."""


def negotiate(accept: str) -> Accepted:
    """Choose the first media type of an Accept header that the API speaks; raises 406 when there is none."""
    if not accept.strip():
        return Accepted()
    for media in accept.split(","):
        kind, *parameters = (part.strip() for part in media.split(";"))
        options = dict(part.split("=", 1) for part in parameters if "=" in part)
        kind = kind.lower()
        if kind in ("*/*", "application/*"):
            return Accepted()
        if kind not in ("application/json", "application/yaml", "text/plain", "text/*"):
            continue
        match options.get("as"), options.get("g"), options.get("v"):
            case None, _, _:
                return Accepted(yaml=kind == "application/yaml")
            case "Table", "meta.k8s.io", "v1":
                return Accepted("table", kind == "application/yaml")
            case "PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1":
                return Accepted("metadata", kind == "application/yaml")
            case "APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2" as version:
                return Accepted(aggregated_discovery=version)
            case _:
                continue
    types = "application/json, application/yaml"
    raise ApiError(406, "NotAcceptable", f"only the following media types are accepted: {types}")


_VERBS: Mapping[str, str] = {"POST": "create", "PUT": "update", "PATCH": "patch"}
_CONNECT = frozenset({"attach", "exec", "portforward", "proxy"})


def verb_of(method: str, path: ResourcePath, watch: bool) -> str:
    """Return the verb that authorization knows for a request."""
    if method in ("GET", "HEAD"):
        if path.name and path.subresource in _CONNECT - {"proxy"}:
            return "create"
        if path.name and not path.watch:
            return "get"
        return "watch" if watch or path.watch else "list"
    if method == "DELETE":
        return "delete" if path.name else "deletecollection"
    verb = _VERBS.get(method)
    if verb is None:
        raise ApiError(405, "MethodNotAllowed", f"the method {method} is not supported")
    return verb
