"""What the API answers when it refuses: an ApiError carries the Status object that clients print.

The texts are those of a cluster, because kubectl, client libraries and people match on them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tulle.local.api.objects import Obj

__all__ = [
    "ApiError",
    "Cause",
    "already_exists",
    "bad_request",
    "conflict",
    "expired",
    "forbidden",
    "invalid",
    "method_not_allowed",
    "not_found",
    "too_large",
    "unauthorized",
]


class ApiError(Exception):
    """The API refused a request. `status` is the meta/v1 Status, `code` its HTTP code, `reason` its machine word."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: Obj | None = None,
        *,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message
        self.details = dict(details or {})
        self.retry_after = retry_after
        if retry_after is not None:
            self.details["retryAfterSeconds"] = retry_after

    @property
    def status(self) -> Obj:
        """Return the Status object sent to the client."""
        status: Obj = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if self.details:
            status["details"] = self.details
        return status


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing wrong with an object: where, which kind of wrong, and the sentence about it."""

    field: str
    reason: str
    message: str

    @classmethod
    def required(cls, field: str, detail: str = "") -> "Cause":
        """Name a field that must be given."""
        return cls(field, "FieldValueRequired", "Required value" + (f": {detail}" if detail else ""))

    @classmethod
    def invalid(cls, field: str, value: object, detail: str) -> "Cause":
        """Name a field whose value is not acceptable."""
        return cls(field, "FieldValueInvalid", f"Invalid value: {_shown(value)}: {detail}")

    @classmethod
    def unsupported(cls, field: str, value: object, supported: Sequence[str]) -> "Cause":
        """Name a field whose value is none of the supported ones."""
        listed = ", ".join(f'"{item}"' for item in supported)
        return cls(
            field, "FieldValueNotSupported", f"Unsupported value: {_shown(value)}: supported values: {listed}"
        )

    @classmethod
    def duplicate(cls, field: str, value: object) -> "Cause":
        """Name a list entry that occurs twice."""
        return cls(field, "FieldValueDuplicate", f"Duplicate value: {_shown(value)}")

    @classmethod
    def forbidden(cls, field: str, detail: str) -> "Cause":
        """Name a field that may not be set or changed now."""
        return cls(field, "FieldValueForbidden", f"Forbidden: {detail}")

    @classmethod
    def wrong_type(cls, field: str, value: object, expected: str) -> "Cause":
        """Name a field whose value has another JSON type than the schema says."""
        detail = f'{field} in body must be of type {expected}: "{json_type(value)}"'
        return cls(field, "FieldValueTypeInvalid", f'Invalid value: "{json_type(value)}": {detail}')


def json_type(value: object) -> str:
    """Return the JSON name of a value's type."""
    for kind, name in (
        (bool, "boolean"),
        (int, "integer"),
        (float, "number"),
        (str, "string"),
        (list, "array"),
    ):
        if isinstance(value, kind):
            return name
    return "null" if value is None else "object"


def _shown(value: object) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    return str(value)


def qualified(plural: str, group: str) -> str:
    """Return the resource as messages name it: pods, deployments.apps."""
    return f"{plural}.{group}" if group else plural


def _details(plural: str, group: str, name: str) -> Obj:
    details = {"name": name} if name else {}
    if group:
        details["group"] = group
    return {**details, "kind": plural}


def not_found(plural: str, group: str, name: str) -> ApiError:
    """Return the 404 for an object that does not exist."""
    message = f'{qualified(plural, group)} "{name}" not found'
    return ApiError(404, "NotFound", message, _details(plural, group, name))


def no_such_resource() -> ApiError:
    """Return the 404 for a path or resource that the API does not have."""
    return ApiError(404, "NotFound", "the server could not find the requested resource")


def already_exists(plural: str, group: str, name: str) -> ApiError:
    """Return the 409 for a create of a name that is taken."""
    message = f'{qualified(plural, group)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, _details(plural, group, name))


def conflict(plural: str, group: str, name: str, why: str = "") -> ApiError:
    """Return the 409 of optimistic concurrency (or of a failed precondition, then with `why`)."""
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    message = f'Operation cannot be fulfilled on {qualified(plural, group)} "{name}": {why}'
    return ApiError(409, "Conflict", message, _details(plural, group, name))


def invalid(kind: str, group: str, name: str, causes: Sequence[Cause]) -> ApiError:
    """Return the 422 that lists everything wrong with an object."""
    texts = [f"{cause.field}: {cause.message}" for cause in causes]
    listed = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    details: Obj = _details(kind, group, name)
    details["causes"] = [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]
    return ApiError(422, "Invalid", f'{qualified(kind, group)} "{name}" is invalid: {listed}', details)


def bad_request(message: str) -> ApiError:
    """Return the 400 for a request that cannot be understood."""
    return ApiError(400, "BadRequest", message)


def expired(message: str) -> ApiError:
    """Return the 410 for a resource version that was compacted away: list again."""
    return ApiError(410, "Expired", message)


def unauthorized() -> ApiError:
    """Return the 401 for a request without accepted credentials."""
    return ApiError(401, "Unauthorized", "Unauthorized")


def forbidden(plural: str, group: str, name: str, why: str) -> ApiError:
    """Return the 403 with its reason."""
    subject = qualified(plural, group) + (f' "{name}"' if name else "")
    return ApiError(403, "Forbidden", f"{subject} is forbidden: {why}", _details(plural, group, name))


def method_not_allowed() -> ApiError:
    """Return the 405 for a verb that a resource does not have."""
    return ApiError(
        405, "MethodNotAllowed", "the server does not allow this method on the requested resource"
    )


def too_large(limit: int) -> ApiError:
    """Return the 413 for a request body over the limit (bytes)."""
    return ApiError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}")
