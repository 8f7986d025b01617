"""What is applied of a user's object, and which fields an answer of the API objects to."""

import json

import pytest

from tulle.local.api import ApiError
from tulle.local.channel import SourcedObject
from tulle.local.world.applying import LAST_APPLIED, annotated, fields_of

SERVICE: dict[str, object] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web"},
    "spec": {"ports": []},
}


def test_an_object_of_the_users_says_where_it_was_written_and_what() -> None:
    obj = annotated(SourcedObject(SERVICE, "app.yaml:3"), "default")
    annotations = obj["metadata"]["annotations"]
    assert annotations["tulle.dev/source"] == "app.yaml:3"
    # The bytes that kubectl apply writes of the same file: sorted, with namespace and annotations, and a line's end.
    assert annotations[LAST_APPLIED] == (
        '{"apiVersion":"v1","kind":"Service",'
        '"metadata":{"annotations":{},"name":"web","namespace":"default"},"spec":{"ports":[]}}\n'
    )
    assert "annotations" not in SERVICE["metadata"]  # type: ignore[operator]


def test_annotations_of_the_users_stay() -> None:
    own: dict[str, object] = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "a", "annotations": {"x": "y"}},
    }
    annotations = annotated(SourcedObject(own, "app.yaml:1"), None)["metadata"]["annotations"]
    assert annotations["x"] == "y"
    assert json.loads(annotations[LAST_APPLIED])["metadata"] == {"name": "a", "annotations": {"x": "y"}}


def test_tulles_own_objects_are_applied_as_they_are() -> None:
    assert annotated(SourcedObject(SERVICE, ""), "default") == SERVICE


@pytest.mark.parametrize(
    ("error", "fields"),
    [
        (
            ApiError(
                422, "Invalid", "no", {"causes": [{"field": "spec.ports[0].port", "message": "too large"}]}
            ),
            ["spec.ports[0].port"],
        ),
        (ApiError(400, "BadRequest", 'strict decoding error: unknown field "spec.portss"'), ["spec.portss"]),
        (
            ApiError(
                400,
                "BadRequest",
                "json: cannot unmarshal string into Go struct field Deployment.spec.replicas of type int32",
            ),
            ["spec.replicas"],
        ),
        (ApiError(409, "Conflict", "somebody was faster"), []),
    ],
)
def test_the_fields_that_an_answer_objects_to_are_found(error: ApiError, fields: list[str]) -> None:
    assert fields_of(error) == fields
