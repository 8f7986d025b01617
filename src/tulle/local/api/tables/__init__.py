"""Tables: what `kubectl get` shows, computed by the server (meta.k8s.io/v1 Table). Pure.

A printer is a list of columns and a function from object to cells; one module per family of kinds.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tulle.local.api.objects import Obj
from tulle.local.api.registry import ResourceType
from tulle.local.api.tables import config, custom, pods, rest, services, workloads
from tulle.local.api.tables.printing import NAME, Printer, age

__all__ = ["metadata_only", "printer_for", "table"]

_PRINTERS: dict[str, Printer] = {
    **pods.PRINTERS,
    **workloads.PRINTERS,
    **services.PRINTERS,
    **config.PRINTERS,
    **rest.PRINTERS,
}

_STANDARD = Printer(
    [NAME, {"name": "Age", "type": "string", "format": ""}],
    lambda obj, now: [obj["metadata"]["name"], age(obj["metadata"].get("creationTimestamp"), now)],
)


def printer_for(resource: ResourceType, version: str | None) -> Printer:
    """Return the printer of a resource."""
    served = resource.served(version)
    if served is not None:
        return custom.printer(served.columns) if served.columns else _STANDARD
    return _PRINTERS.get(resource.key, _STANDARD)


def table(
    printer: Printer,
    objects: Sequence[Obj],
    now: datetime,
    *,
    metadata: Obj | None = None,
    include: str = "Metadata",
    columns: bool = True,
) -> Obj:
    """Return the Table of some objects. `include`: what each row carries of its object: None, Metadata or Object."""
    rows: list[Obj] = []
    for obj in objects:
        row: Obj = {"cells": printer.cells(obj, now)}
        if include == "Object":
            row["object"] = obj
        elif include != "None":
            row["object"] = metadata_only(obj)
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata or {},
        "columnDefinitions": printer.definitions() if columns else None,
        "rows": rows,
    }


def metadata_only(obj: Obj) -> dict[str, Any]:
    """Return an object's PartialObjectMetadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
