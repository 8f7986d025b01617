"""Schemas of built-in kinds and of custom resources."""

from typing import Any

import msgspec
import pytest

from tulle.local.api import kinds_source
from tulle.local.api.registry import Registry, version_priority
from tulle.local.api.schema import builtin, definition_names, drop_nulls, mismatches, prune, unknown_fields
from tulle.local.api.structural import apply_defaults, check_values, parse_root, structural_problems
from tulle.local.api.wire import source as wire_source


def test_kinds_json_is_what_its_source_renders() -> None:
    stale = "run: python -m tulle.local.api.kinds_source"
    assert kinds_source.TARGET.read_text() == kinds_source.render(), stale


def test_every_field_of_every_kind_is_known_in_protobuf() -> None:
    wire = msgspec.json.decode(wire_source.TARGET.read_bytes(), type=dict[str, dict[str, str]])

    def names(definition: str) -> set[str]:
        found: set[str] = set()
        for text in wire[definition].values():
            name, _, kind = text.partition(":")
            found |= names(kind[1:]) if name == "+" else {name}
        return found

    for definition in definition_names():
        if definition.endswith("List") or definition.startswith("apiextensions_"):
            continue
        missing = set(builtin(definition).properties) - names(definition) - {"apiVersion", "kind"}
        assert not missing, f"{definition}: run python -m tulle.local.api.wire.source"


def test_every_definition_resolves() -> None:
    for definition in definition_names():
        for field in builtin(definition).properties.values():
            assert field.type or field.preserve_unknown


def test_every_resource_has_a_schema_with_metadata() -> None:
    for resource in Registry():
        assert "metadata" in resource.schema.properties, resource.key


def test_unknown_fields_are_found_at_any_depth() -> None:
    pod: Any = {
        "metadata": {"labels": {"any": "thing"}, "lables": {}},
        "spec": {
            "containers": [{"name": "a"}, {"name": "b", "env": [{"nam": "x"}]}],
            "nodeSelector": {"any": "x"},
        },
    }
    found = list(unknown_fields(builtin("core_v1.Pod"), pod))
    assert found == ["metadata.lables", "spec.containers[1].env[0].nam"]
    prune(builtin("core_v1.Pod"), pod)
    assert list(unknown_fields(builtin("core_v1.Pod"), pod)) == []
    assert pod["spec"]["nodeSelector"] == {"any": "x"}


@pytest.mark.parametrize(
    ("spec", "path", "expected", "found"),
    [
        ({"replicas": "2"}, "spec.replicas", "integer", "string"),
        ({"replicas": True}, "spec.replicas", "integer", "boolean"),
        ({"replicas": 2.5}, "spec.replicas", "integer", "number"),
        ({"paused": 1}, "spec.paused", "boolean", "integer"),
        ({"template": []}, "spec.template", "object", "array"),
        ({"selector": {"matchLabels": {"a": 1}}}, "spec.selector.matchLabels.a", "string", "integer"),
        (
            {"strategy": {"rollingUpdate": {"maxSurge": []}}},
            "spec.strategy.rollingUpdate.maxSurge",
            "integer or string",
            "array",
        ),
    ],
)
def test_wrong_types_are_found(spec: Any, path: str, expected: str, found: str) -> None:
    wrong = list(mismatches(builtin("apps_v1.Deployment"), {"spec": spec}))
    assert [(w.path, w.expected, w.found) for w in wrong] == [(path, expected, found)]


def test_an_int_or_string_and_a_quantity_take_both() -> None:
    spec = {"strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": "25%"}}}
    assert not list(mismatches(builtin("apps_v1.Deployment"), {"spec": spec}))
    limits = {"limits": {"cpu": 1, "memory": "1Gi"}}
    assert not list(mismatches(builtin("core_v1.Container"), {"resources": limits}))


def test_nulls_of_typed_fields_are_dropped() -> None:
    pod: Any = {
        "metadata": {"creationTimestamp": None, "labels": None},
        "spec": {"containers": [{"env": None}]},
    }
    drop_nulls(builtin("core_v1.Pod"), pod)
    assert pod == {"metadata": {}, "spec": {"containers": [{}]}}
    revision: Any = {"data": {"keep": None}}
    drop_nulls(builtin("apps_v1.ControllerRevision"), revision)
    assert revision == {"data": {"keep": None}}


def test_versions_are_ordered_as_kubernetes_prefers_them() -> None:
    versions = ["foo10", "v1alpha1", "v2", "v10", "v1", "v2beta1", "v11beta2", "v10beta3", "foo1"]
    ordered = ["v10", "v2", "v1", "v11beta2", "v10beta3", "v2beta1", "v1alpha1", "foo1", "foo10"]
    assert sorted(versions, key=version_priority) == ordered


def custom(spec: Any) -> Any:
    return parse_root({"type": "object", "properties": {"spec": spec}})


def complaints(spec: Any, value: Any) -> list[str]:
    return [f"{cause.field}: {cause.message}" for cause in check_values(custom(spec), {"spec": value})]


@pytest.mark.parametrize(
    ("schema", "value", "part"),
    [
        ({"type": "array", "minItems": 1, "items": {"type": "string"}}, [], "should have at least 1 items"),
        ({"type": "array", "maxItems": 1, "items": {"type": "string"}}, ["a", "b"], "Too many: 2"),
        (
            {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            ["a", "a"],
            "Duplicate value",
        ),
        ({"type": "object", "minProperties": 1}, {}, "should have at least 1 properties"),
        ({"type": "number", "multipleOf": 0.5}, 0.7, "should be a multiple of 0.5"),
        ({"type": "integer", "minimum": 3, "exclusiveMinimum": True}, 3, "should be greater than 3"),
        ({"type": "string", "minLength": 2}, "a", "should be at least 2 chars long"),
        ({"type": "string", "format": "date-time"}, "yesterday", "must be of type date-time"),
        (
            {"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
            {},
            "must validate exactly one schema",
        ),
        ({"type": "object", "anyOf": [{"required": ["a"]}]}, {}, "must validate at least one schema"),
        (
            {"type": "object", "not": {"required": ["a"]}, "properties": {"a": {"type": "string"}}},
            {"a": "x"},
            "must not validate",
        ),
        ({"type": "object", "allOf": [{"required": ["a"]}]}, {}, "spec.a: Required value"),
        ({"type": "string"}, None, "must be of type string"),
    ],
)
def test_values_of_custom_resources_are_checked(schema: Any, value: Any, part: str) -> None:
    found = complaints(schema, value)
    assert len(found) == 1
    assert part in found[0]


def test_a_nullable_value_may_be_null() -> None:
    assert not complaints({"type": "string", "nullable": True}, None)


def test_defaults_are_filled_where_their_parent_is() -> None:
    schema = custom(
        {
            "type": "object",
            "properties": {
                "a": {"type": "integer", "default": 1},
                "inner": {"type": "object", "properties": {"b": {"type": "string", "default": "x"}}},
                "list": {
                    "type": "array",
                    "items": {"type": "object", "properties": {"c": {"type": "integer", "default": 2}}},
                },
                "null": {"type": "string", "default": "y"},
                "nullable": {"type": "string", "nullable": True, "default": "z"},
            },
        }
    )
    value: Any = {"spec": {"list": [{}, {"c": 5}], "null": None, "nullable": None}}
    apply_defaults(schema, value)
    assert value == {"spec": {"a": 1, "list": [{"c": 2}, {"c": 5}], "null": "y", "nullable": None}}
    absent: Any = {}
    apply_defaults(schema, absent)
    assert absent == {}


def test_a_default_is_copied_each_time() -> None:
    schema = custom({"type": "object", "default": {"list": []}, "x-kubernetes-preserve-unknown-fields": True})
    first: Any = {}
    second: Any = {}
    apply_defaults(schema, first)
    first["spec"]["list"].append(1)
    apply_defaults(schema, second)
    assert second == {"spec": {"list": []}}


def test_structural_schemas_need_types() -> None:
    bad = {
        "type": "object",
        "properties": {
            "a": {"minLength": 1},
            "b": {"type": "array"},
            "c": {"type": "string", "pattern": "("},
        },
    }
    fields = [cause.field for cause in structural_problems(bad, "s")]
    assert fields == ["s.properties[a].type", "s.properties[b].items", "s.properties[c].pattern"]
