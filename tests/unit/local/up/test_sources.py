"""Reading manifests: what is taken, in which order, and how an error says where."""

from pathlib import Path

import pytest

from tulle.errors import TulleError, UsageError
from tulle.local import sources

DEPLOYMENT = """\
# a comment
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  template:
    spec:
      containers:
      - name: web
        image: web:1
      - name: side
        imagee: side:1
"""


def parse(text: str) -> list[sources.Manifest]:
    return sources.parse(text, "app.yaml")


def test_each_object_knows_its_line() -> None:
    first, second = parse(DEPLOYMENT + "---\n" + DEPLOYMENT)
    assert (first.where, second.where) == ("app.yaml:2", "app.yaml:16")
    assert first.title == "Deployment web"


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("metadata.name", 5),
        ("spec.template.spec.containers[1].imagee", 13),
        ("spec.template.spec.containers[1]", 12),
        ("spec.template.spec.nothing.below", 8),
        ("spec.template.spec.containers[9]", 9),
    ],
)
def test_a_field_has_a_line(path: str, line: int) -> None:
    (manifest,) = parse(DEPLOYMENT)
    assert manifest.locate(path) == f"app.yaml:{line}"


def test_a_list_is_taken_apart() -> None:
    text = "apiVersion: v1\nkind: List\nitems:\n" + "".join(
        f"- apiVersion: v1\n  kind: ConfigMap\n  metadata: {{name: {name}}}\n" for name in ("one", "two")
    )
    assert [(m.title, m.line) for m in parse(text)] == [("ConfigMap one", 4), ("ConfigMap two", 7)]


def test_empty_documents_and_comments_are_no_objects() -> None:
    assert parse("---\n# nothing\n---\n") == []


def test_dates_stay_text() -> None:
    (manifest,) = parse("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {day: 2024-01-01}\n")
    assert manifest.obj["data"] == {"day": "2024-01-01"}


@pytest.mark.parametrize(
    ("text", "where", "word"),
    [
        ("apiVersion: v1\nkind: [\n", "app.yaml:3:1", "not valid YAML"),
        ("apiVersion: v1\n  kind: Pod\n", "app.yaml:2:7", "not valid YAML"),
        ("apiVersion: v1\nkind: Pod\nmetadata:\n\tname: x\n", "app.yaml:4:1", "not valid YAML"),
        ("kind: Pod\nmetadata: {name: x}\n", "app.yaml:1", "apiVersion is missing"),
        ("apiVersion: v1\nmetadata: {name: x}\n", "app.yaml:1", "kind is missing"),
        ("\n\napiVersion: v1\nkind: Pod\n", "app.yaml:3", "Pod without metadata.name"),
        ("- one\n- two\n", "app.yaml:1", "not a Kubernetes object"),
        (
            "apiVersion: v1\nkind: Pod\nkind: Pod\nmetadata: {name: x}\n",
            "app.yaml:3:1",
            "kind is given twice",
        ),
        ("a: !!python/object/apply:os.system [ls]\n", "app.yaml:1:4", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, where: str, word: str) -> None:
    with pytest.raises(TulleError) as caught:
        parse(text)
    assert caught.value.what.startswith(where + ":"), caught.value.what
    assert word in caught.value.what


def test_aliases_that_blow_up_are_refused() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(TulleError, match="too large"):
        parse("\n".join(levels))


def test_a_directory_means_its_manifests_by_name(tmp_path: Path) -> None:
    for name in ("b.yml", "a.yaml", "c.json", "notes.txt"):
        (tmp_path / name).write_text(
            f'{{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {{"name": "{name[0]}"}}}}'
        )
    assert [m.obj["metadata"]["name"] for m in sources.load([tmp_path])] == ["a", "b", "c"]


def test_a_kustomization_that_lists_is_followed_and_one_that_does_more_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")
    (tmp_path / "b.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n")
    kustomization = tmp_path / "kustomization.yaml"
    kustomization.write_text("kind: Kustomization\nresources:\n- b.yaml\n")
    assert [m.obj["metadata"]["name"] for m in sources.load([tmp_path])] == ["b"]
    kustomization.write_text("resources: [a.yaml]\nnamePrefix: my-\n")
    with pytest.raises(TulleError, match="namePrefix would not be carried out"):
        sources.load([tmp_path])


def test_what_is_not_there_is_a_wrong_call(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        sources.load([tmp_path / "nothing.yaml"])
    with pytest.raises(UsageError, match="holds no manifest"):
        sources.load([tmp_path])


def test_namespaces_and_definitions_come_first() -> None:
    def obj(kind: str) -> str:
        return f"apiVersion: v1\nkind: {kind}\nmetadata: {{name: {kind.lower()}}}\n"

    text = "---\n".join(obj(k) for k in ("Service", "CustomResourceDefinition", "Pod", "Namespace"))
    assert [m.obj["kind"] for m in sources.order(parse(text))] == [
        "Namespace",
        "CustomResourceDefinition",
        "Service",
        "Pod",
    ]
