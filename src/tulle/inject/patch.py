"""JSON Patch (RFC 6902): the operations that lead from one JSON document to another.

Members of objects are compared one by one; an array that differs is replaced whole, for the API server applies
operations in order and an index into a changed array is easily wrong.
"""

from typing import Any

__all__ = ["diff"]


def diff(before: Any, after: Any, path: str = "") -> list[dict[str, Any]]:
    """Return the operations that turn `before` into `after`; neither is changed."""
    if isinstance(before, dict) and isinstance(after, dict):
        operations = []
        for key, value in after.items():
            pointer = f"{path}/{_escaped(key)}"
            if key not in before:
                operations.append({"op": "add", "path": pointer, "value": value})
            else:
                operations.extend(diff(before[key], value, pointer))
        operations.extend(
            {"op": "remove", "path": f"{path}/{_escaped(key)}"} for key in before if key not in after
        )
        return operations
    return [] if before == after else [{"op": "replace", "path": path, "value": after}]


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
