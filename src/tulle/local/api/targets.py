"""What a write is about and how it is asked for: the vocabulary that the writer, admission and the HTTP side share."""

from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from tulle.local.api.auth.users import SYSTEM, User
from tulle.local.api.errors import ApiError, not_found
from tulle.local.api.objects import Obj
from tulle.local.api.registry import ResourceType

__all__ = ["Admission", "AdmissionRequest", "FieldValidation", "Target", "WriteOptions"]

FieldValidation: TypeAlias = Literal["Ignore", "Warn", "Strict"]


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How a write is asked for."""

    user: User = SYSTEM
    dry_run: bool = False
    field_manager: str = "tulle"
    validation: FieldValidation = "Strict"
    warnings: list[str] = field(default_factory=list)
    """Filled with what the client should be told although the write succeeds."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a write is about."""

    resource: ResourceType
    namespace: str | None
    name: str = ""
    subresource: str | None = None
    version: str | None = None

    @property
    def api_version(self) -> str:
        """Return the apiVersion that the client uses."""
        return self.resource.api_version(self.version)

    def missing(self) -> ApiError:
        """Return the 404 for this target."""
        return not_found(self.resource.plural, self.resource.group, self.name)


@dataclass(frozen=True, slots=True)
class AdmissionRequest:
    """What admission is asked about. `obj` is None for a delete, `old` for a create."""

    operation: Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]
    target: Target
    obj: Obj | None
    old: Obj | None
    options: WriteOptions


class Admission(Protocol):
    """Admission webhooks and the built-in admission steps."""

    async def mutate(self, request: AdmissionRequest) -> Obj:
        """Return the object to go on with; raise ApiError to refuse."""
        ...

    async def validate(self, request: AdmissionRequest) -> None:
        """Raise ApiError to refuse."""
        ...
