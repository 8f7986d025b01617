"""Admission: what may change or refuse a write before it is stored, in the order of a cluster."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from tulle.local.api.objects import Obj
from tulle.local.api.targets import AdmissionRequest

__all__ = ["AdmissionChain", "AdmissionStep"]


class AdmissionStep(Protocol):
    """One admission plugin; both halves do nothing for requests that are not theirs."""

    async def mutate(self, request: AdmissionRequest) -> Obj:
        """Return the object to go on with (`request.obj` itself when nothing changes); raise ApiError to refuse."""
        ...

    async def validate(self, request: AdmissionRequest) -> None:
        """Raise ApiError to refuse."""
        ...


class AdmissionChain:
    """Admission steps one after the other; built-in steps come before webhooks."""

    def __init__(self, steps: Sequence[AdmissionStep] = ()) -> None:
        self._steps = tuple(steps)

    async def mutate(self, request: AdmissionRequest) -> Obj:
        """Let every step change the object in turn."""
        assert request.obj is not None
        obj = request.obj
        for step in self._steps:
            obj = await step.mutate(replace(request, obj=obj))
        return obj

    async def validate(self, request: AdmissionRequest) -> None:
        """Let every step refuse."""
        for step in self._steps:
            await step.validate(request)
