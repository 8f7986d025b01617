"""Custom resources: schemas, defaults, pruning, versions, subresources, discovery."""

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from lightkube.core.exceptions import ApiError
from lightkube.generic_resource import create_namespaced_resource
from lightkube.types import PatchType

from tests.conformance.clients import Cluster, Kubectl, wait_until

pytestmark = pytest.mark.conformance

SCHEMA = """
type: object
required: [spec]
properties:
  spec:
    type: object
    required: [size]
    properties:
      size: {type: string, enum: [small, large]}
      replicas: {type: integer, default: 3, minimum: 0, maximum: 10}
      name: {type: string, pattern: "^[a-z]+$", maxLength: 8}
      port: {x-kubernetes-int-or-string: true}
      free: {type: object, x-kubernetes-preserve-unknown-fields: true}
      labels: {type: object, additionalProperties: {type: string}}
      parts:
        type: array
        x-kubernetes-list-type: map
        x-kubernetes-list-map-keys: [name]
        items:
          type: object
          required: [name]
          properties:
            name: {type: string}
            weight: {type: integer, default: 1}
      inner:
        type: object
        default: {}
        properties:
          mode: {type: string, default: auto}
  status:
    type: object
    properties:
      replicas: {type: integer}
      selector: {type: string}
"""


def definition(group: str, **more: Any) -> dict[str, Any]:
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": yaml.safe_load(SCHEMA)},
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
        "additionalPrinterColumns": [
            {"name": "Size", "type": "string", "jsonPath": ".spec.size"},
            {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
            {"name": "Mode", "type": "string", "jsonPath": ".spec.inner.mode", "priority": 1},
        ],
    }
    older = {**version, "name": "v1beta1", "storage": False, "deprecated": True}
    names = {
        "plural": "cogs",
        "singular": "cog",
        "kind": "Cog",
        "shortNames": ["cg"],
        "categories": ["machines"],
    }
    spec = {"group": group, "scope": "Namespaced", "names": names, "versions": [version, older], **more}
    metadata = {"name": f"cogs.{group}"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata,
        "spec": spec,
    }


@pytest.fixture(scope="module")
def group(cluster: Cluster) -> Iterator[str]:
    group = f"g{secrets.token_hex(3)}.conformance.tulle.dev"
    kubectl = Kubectl(cluster, "default")
    kubectl("create", "-f", "-", stdin=json.dumps(definition(group)))
    kubectl("wait", "--for=condition=Established", f"crd/cogs.{group}", "--timeout=20s")
    wait_until(lambda: group in kubectl("api-resources"), "the group is discovered")
    yield group
    kubectl("delete", "crd", f"cogs.{group}")


def cog(group: str, version: str = "v1", **spec: Any) -> str:
    obj = {
        "apiVersion": f"{group}/{version}",
        "kind": "Cog",
        "metadata": {"name": "c"},
        "spec": {"size": "small", **spec},
    }
    return json.dumps(obj)


def read(kubectl: Kubectl, group: str, version: str = "v1") -> Any:
    return json.loads(kubectl("get", f"cogs.{version}.{group}", "c", "-o", "json"))


def test_defaults_and_columns(kubectl: Kubectl, group: str) -> None:
    kubectl("apply", "-f", "-", stdin=cog(group, parts=[{"name": "a"}]))
    spec = read(kubectl, group)["spec"]
    expected = {
        "size": "small",
        "replicas": 3,
        "inner": {"mode": "auto"},
        "parts": [{"name": "a", "weight": 1}],
    }
    assert spec == expected
    head, row = kubectl("get", f"cogs.{group}").splitlines()
    assert (head.split(), row.split()) == (["NAME", "SIZE", "REPLICAS"], ["c", "small", "3"])
    assert "MODE" in kubectl("get", f"cogs.{group}", "-o", "wide")


def test_unknown_fields_are_named_or_pruned(kubectl: Kubectl, group: str) -> None:
    odd = cog(group, colour="red", free={"anything": {"goes": 1}}, parts=[{"name": "a", "odd": 1}])
    said = kubectl.fails("apply", "-f", "-", stdin=odd)
    assert 'unknown field "spec.colour"' in said
    assert 'unknown field "spec.parts[0].odd"' in said
    kubectl("apply", "--validate=ignore", "-f", "-", stdin=odd)
    spec = read(kubectl, group)["spec"]
    assert "colour" not in spec
    assert spec["parts"] == [{"name": "a", "weight": 1}]
    assert spec["free"] == {"anything": {"goes": 1}}


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ({"size": "huge"}, 'spec.size: Unsupported value: "huge": supported values: "small", "large"'),
        (
            {"replicas": 11},
            "spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10",
        ),
        ({"replicas": "three"}, "spec.replicas in body must be of type integer"),
        ({"name": "UPPER"}, "spec.name in body should match '^[a-z]+$'"),
        ({"name": "toolonganame"}, "spec.name: Too long: may not be more than 8 bytes"),
        ({"size": None}, "spec.size: Required value"),
        ({"labels": {"a": 1}}, "spec.labels.a in body must be of type string"),
        ({"parts": [{"weight": 2}]}, "spec.parts[0].name: Required value"),
        ({"parts": [{"name": "a"}, {"name": "a"}]}, "spec.parts[1]: Duplicate value"),
    ],
)
def test_values_are_checked(kubectl: Kubectl, group: str, spec: dict[str, Any], complaint: str) -> None:
    assert complaint in kubectl.fails("create", "-f", "-", stdin=cog(group, **spec))


def test_an_int_or_string_takes_both(kubectl: Kubectl, group: str) -> None:
    for port in (80, "http"):
        kubectl("apply", "-f", "-", stdin=cog(group, port=port))
        assert read(kubectl, group)["spec"]["port"] == port
    assert "spec.port" in kubectl.fails("apply", "-f", "-", stdin=cog(group, port=[1]))


def test_status_and_generation(kubectl: Kubectl, group: str) -> None:
    body = json.loads(cog(group))
    body["status"] = {"replicas": 7}
    kubectl("create", "-f", "-", stdin=json.dumps(body))
    assert "status" not in read(kubectl, group), "a create does not set status"
    kubectl(
        "patch",
        f"cogs.{group}",
        "c",
        "--subresource=status",
        "--type=merge",
        "-p",
        '{"status":{"replicas":2},"spec":{"size":"large"}}',
    )
    obj = read(kubectl, group)
    assert obj["status"] == {"replicas": 2}
    assert obj["spec"]["size"] == "small", "a status write does not touch the spec"
    assert obj["metadata"]["generation"] == 1
    kubectl(
        "patch",
        f"cogs.{group}",
        "c",
        "--type=merge",
        "-p",
        '{"status":{"replicas":9},"spec":{"size":"large"}}',
    )
    obj = read(kubectl, group)
    assert (obj["status"]["replicas"], obj["metadata"]["generation"]) == (2, 2)


def test_scale(kubectl: Kubectl, group: str) -> None:
    kubectl("create", "-f", "-", stdin=cog(group))
    kubectl("scale", f"cogs.{group}/c", "--replicas=5")
    assert read(kubectl, group)["spec"]["replicas"] == 5


def test_versions_show_the_same_object(kubectl: Kubectl, group: str) -> None:
    created = kubectl.run("create", "-f", "-", stdin=cog(group, version="v1beta1"))
    assert "v1beta1 Cog is deprecated" in created.stderr
    assert read(kubectl, group)["apiVersion"] == f"{group}/v1"
    assert read(kubectl, group, "v1beta1")["apiVersion"] == f"{group}/v1beta1"


def test_names_are_discovered(kubectl: Kubectl, group: str) -> None:
    kubectl("create", "-f", "-", stdin=cog(group))
    assert kubectl("get", "machines", "-o", "name").strip() == f"cog.{group}/c"
    listed = kubectl("api-resources", "--api-group", group, "--no-headers").split()
    assert listed == ["cogs", "cg", f"{group}/v1", "true", "Cog"]
    assert "-required-" in kubectl(
        "explain", "cogs.spec.size", "--api-version", f"{group}/v1"
    ) or "size" in kubectl("explain", "cogs.spec", "--api-version", f"{group}/v1")


def test_server_side_apply_merges_by_the_schema(light: Any, group: str) -> None:
    resource: Any = create_namespaced_resource(group, "v1", "Cog", "cogs")
    base = {"apiVersion": f"{group}/v1", "kind": "Cog", "metadata": {"name": "c"}}
    light.apply(resource({**base, "spec": {"size": "small", "parts": [{"name": "a"}]}}), field_manager="me")
    both = light.apply(
        resource({**base, "spec": {"parts": [{"name": "b", "weight": 4}]}}), field_manager="they"
    )
    assert both["spec"]["parts"] == [{"name": "a", "weight": 1}, {"name": "b", "weight": 4}]
    with pytest.raises(ApiError) as raised:
        light.apply(resource({**base, "spec": {"size": "large"}}), field_manager="they")
    assert raised.value.status.reason == "Conflict"


def test_there_is_no_strategic_patch(light: Any, group: str) -> None:
    resource: Any = create_namespaced_resource(group, "v1", "Cog", "cogs")
    light.create(resource(json.loads(cog(group))))
    with pytest.raises(ApiError) as raised:
        light.patch(resource, "c", {"spec": {"size": "large"}}, patch_type=PatchType.STRATEGIC)
    assert raised.value.status.code == 415


def test_a_definition_goes_with_its_objects(kubectl: Kubectl) -> None:
    group = f"g{secrets.token_hex(3)}.conformance.tulle.dev"
    kubectl("create", "-f", "-", stdin=json.dumps(definition(group)))
    kubectl("wait", "--for=condition=Established", f"crd/cogs.{group}", "--timeout=20s")
    wait_until(lambda: group in kubectl("api-resources"), "the group is discovered")
    kubectl("create", "-f", "-", stdin=cog(group))
    kubectl("delete", "crd", f"cogs.{group}", "--timeout=20s")
    wait_until(lambda: group not in kubectl("api-resources"), "the group is gone")
    done = kubectl.run("get", f"cogs.v1.{group}", check=False)
    assert done.returncode != 0


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"scope": "Galaxy"}, "spec.scope: Unsupported value"),
        ({"group": "nodots"}, "spec.group: Invalid value"),
        ({"versions": []}, "spec.versions"),
    ],
)
def test_a_broken_definition_is_refused(kubectl: Kubectl, change: dict[str, Any], complaint: str) -> None:
    broken = definition("broken.conformance.tulle.dev")
    broken["spec"].update(change)
    assert complaint in kubectl.fails("create", "-f", "-", stdin=json.dumps(broken))


def test_a_schema_without_types_is_refused(kubectl: Kubectl) -> None:
    broken = definition("broken.conformance.tulle.dev")
    broken["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["size"] = {
        "minLength": 1
    }
    said = kubectl.fails("create", "-f", "-", stdin=json.dumps(broken))
    assert (
        "properties[spec].properties[size].type: Required value: must not be empty for specified object fields"
        in said
    )
