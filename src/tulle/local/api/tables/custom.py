"""Tables of custom resources: additionalPrinterColumns and the JSON paths they name. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from tulle.local.api.objects import Obj
from tulle.local.api.tables.printing import NAME, Cells, Column, Printer, age

__all__ = ["find", "printer"]

_STEP = re.compile(
    r"""\.(?P<field>(?:[^.\[\]\\]|\\.)+)          # .name, with dots escaped
      | \[(?P<index>-?\d+)\]                      # [0]
      | \[['"](?P<quoted>[^'"]+)['"]\]            # ['a.b/c']
      | \[(?P<all>\*)\]                           # [*]
      | \[\?\(\s*@\.(?P<key>[^=!<>\s]+)\s*==\s*['"](?P<value>[^'"]*)['"]\s*\)\]   # [?(@.type=="Ready")]""",
    re.VERBOSE,
)


def find(path: str, obj: Any) -> list[Any]:
    """Return what a simple JSON path (`.status.conditions[?(@.type=="Ready")].status`) finds in an object."""
    found = [obj]
    for step in _STEP.finditer(path):
        found = [value for item in found for value in _follow(step, item)]
    return found


def _follow(step: re.Match[str], item: Any) -> Iterator[Any]:
    key = step["field"] or step["quoted"]
    if key is not None:
        key = key.replace("\\", "")
        if isinstance(item, dict) and key in item:
            yield item[key]
    elif step["all"] is not None and isinstance(item, (list, dict)):
        yield from item if isinstance(item, list) else item.values()
    elif isinstance(item, list):
        if step["index"] is not None:
            index = int(step["index"])
            if -len(item) <= index < len(item):
                yield item[index]
        elif step["key"] is not None:
            for entry in item:
                if find("." + step["key"], entry) == [step["value"]]:
                    yield entry


def printer(columns: Sequence[Mapping[str, Any]]) -> Printer:
    """Return the printer for a version's additionalPrinterColumns."""
    definitions: list[Column] = [NAME]
    for column in columns:
        definition = {
            key: column[key] for key in ("name", "type", "format", "description", "priority") if key in column
        }
        if column.get("type") == "date":
            definition["type"] = "string"
        definitions.append(definition)

    def cells(obj: Obj, now: datetime) -> Cells:
        return [obj["metadata"]["name"], *(_cell(column, obj, now) for column in columns)]

    return Printer(definitions, cells)


def _cell(column: Mapping[str, Any], obj: Obj, now: datetime) -> Any:
    found = find(column["jsonPath"], obj)
    if not found:
        return None
    value = found[0] if len(found) == 1 else ",".join(str(item) for item in found)
    match column.get("type"):
        case "date":
            return age(str(value), now)
        case "integer" | "number" if isinstance(value, (int, float)) and not isinstance(value, bool):
            return value
        case "boolean" if isinstance(value, bool):
            return value
        case "string":
            if isinstance(value, bool):
                return "true" if value else "false"
            if isinstance(value, (dict, list)):
                return msgspec.json.encode(value).decode()
            return str(value)
        case _:
            return None
