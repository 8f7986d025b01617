"""Writes kinds.json, the compact schema of the built-in kinds, from the typed models of lightkube-models.

Run `python -m tulle.local.api.kinds_source` after an upgrade of lightkube-models; a test says when the file is stale.
Only names and types are taken. A field's type is a short text: `s` string, `i` integer, `n` number, `b` boolean,
`t` time, `y` base64 bytes, `q` quantity, `x` integer or string, `o` free object, `j` any JSON, `@Name` a definition,
`[T` list of T, `{T` map to T; a leading `!` marks a required field.
"""

import ast
import importlib.util
import json
import re
from pathlib import Path

__all__ = ["MODULES", "TARGET", "render"]

MODULES = (
    "meta_v1",
    "core_v1",
    "apps_v1",
    "batch_v1",
    "discovery_v1",
    "rbac_v1",
    "admissionregistration_v1",
    "apiextensions_v1",
    "authentication_v1",
    "authorization_v1",
    "autoscaling_v1",
    "autoscaling_v2",
    "certificates_v1",
    "coordination_v1",
    "policy_v1",
    "events_v1",
    "scheduling_v1",
    "scheduling_v1alpha3",
    "networking_v1",
    "node_v1",
    "storage_v1",
)
TARGET = Path(__file__).with_name("kinds.json")

_SCALARS = {
    "str": "s",
    "int": "i",
    "float": "n",
    "bool": "b",
    "dict": "o",
    "Dict": "o",
    "meta_v1.Time": "t",
    "meta_v1.MicroTime": "t",
    "Time": "t",
    "MicroTime": "t",
    "resource.Quantity": "q",
    "util_intstr.IntOrString": "x",
    "runtime.RawExtension": "o",
    "FieldsV1": "o",
    "Patch": "o",
    "JSON": "j",
    "Any": "j",
    "JSONSchemaPropsOrBool": "j",
    "JSONSchemaPropsOrArray": "j",
    "JSONSchemaPropsOrStringArray": "j",
    "CustomResourceSubresourceStatus": "o",
    "ExtraValue": "[s",
}


_QUANTITIES = frozenset(
    {
        "allocatable",
        "allocatedResources",
        "capacity",
        "default",
        "defaultRequest",
        "hard",
        "limits",
        "max",
        "maxLimitRequestRatio",
        "min",
        "overhead",
        "podFixed",
        "requests",
        "used",
    }
)
_SCHEMAS = frozenset({"definitions", "patternProperties", "properties"})
_FREE = frozenset(
    {
        "apiextensions_v1.CustomResourceSubresources.status",
        "apiextensions_v1.JSONSchemaProps.dependencies",
        "apps_v1.ControllerRevision.data",
        "meta_v1.ManagedFieldsEntry.fieldsV1",
        "meta_v1.WatchEvent.object",
    }
)
"""Objects without a schema of their own; every other plain `dict` of the models is a map of one of three types."""


def render() -> str:
    """Return the text of kinds.json for the installed models."""
    definitions: dict[str, dict[str, str]] = {}
    for module in MODULES:
        spec = importlib.util.find_spec("lightkube.models")
        assert spec is not None and spec.submodule_search_locations
        source = (Path(spec.submodule_search_locations[0]) / f"{module}.py").read_text()
        for statement in ast.parse(source).body:
            if isinstance(statement, ast.ClassDef):
                definitions[f"{module}.{statement.name}"] = _fields(module, statement)
    for fields in definitions.values():
        for name, kind in fields.items():
            _, reference, target = kind.partition("@")
            if reference and target not in definitions:
                fields[name] = kind.removesuffix(f"@{target}") + "o"
    return json.dumps(definitions, separators=(",", ":"), sort_keys=True).replace('},"', '},\n"') + "\n"


def _fields(module: str, statement: ast.ClassDef) -> dict[str, str]:
    fields: dict[str, str] = {}
    for item in statement.body:
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        assert isinstance(item.annotation, ast.Constant)
        annotation = str(item.annotation.value)
        name, required = item.target.id, item.value is None
        if isinstance(item.value, ast.Call):
            renamed = ast.literal_eval(next(k.value for k in item.value.keywords if k.arg == "metadata"))
            name = renamed["json"]
            required = all(k.arg != "default" for k in item.value.keywords)
        kind = _type(module, annotation)
        if kind == "o" and f"{module}.{statement.name}.{name}" not in _FREE:
            kind = _map_type(name)
        fields[name] = ("!" if required else "") + kind
    return fields


def _map_type(name: str) -> str:
    """Return the type of a map whose value type the models leave out: it follows from the field's name."""
    if name in _QUANTITIES:
        return "{q"
    if name in _SCHEMAS:
        return "{@apiextensions_v1.JSONSchemaProps"
    return "{[s" if name == "extra" else "{s"


def _type(module: str, annotation: str) -> str:
    if optional := re.fullmatch(r"Optional\[(.*)\]", annotation):
        return _type(module, optional[1])
    if listed := re.fullmatch(r"[Ll]ist\[(.*)\]", annotation):
        return "[" + _type(module, listed[1])
    if mapped := re.fullmatch(r"[Dd]ict\[str, ?(.*)\]", annotation):
        return "{" + _type(module, mapped[1])
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    if not re.fullmatch(r"(\w+\.)?[A-Z]\w*", annotation):
        raise ValueError(f"{module}: a type that kinds.json cannot say: {annotation}")
    return "@" + (annotation if "." in annotation else f"{module}.{annotation}")


if __name__ == "__main__":
    TARGET.write_text(render())
