"""Manifests as they lie in files: read with the file and line of everything, so that an error can say where.

YAML is read as Kubernetes reads it: several documents in a file, `kind: List` taken apart, dates left as text,
a key given twice refused. A directory means its .yaml, .yml and .json files in the order of their names, or what
its kustomization.yaml lists; a kustomization that does more than list is refused, for it would not be carried out.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tulle.errors import TulleError, UsageError
from tulle.kube.yaml import Loader

__all__ = ["LARGEST_FILE", "SOURCE_ANNOTATION", "Manifest", "load", "order", "parse"]

SOURCE_ANNOTATION = "tulle.dev/source"
LARGEST_FILE = 8 << 20  # bytes
_MOST_NODES = 500_000  # of one document once its aliases are followed: a bound on "billion laughs"
_SUFFIXES = (".yaml", ".yml", ".json")
_KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")
_LISTING_ONLY = {"apiVersion", "kind", "metadata", "resources"}
_FIRST_KINDS = {"Namespace": 0, "CustomResourceDefinition": 1}


@dataclass(frozen=True)
class Manifest:
    """One object of a file. `line` (from 1) is where it begins; `node` is what it was read from."""

    file: str
    line: int
    obj: dict[str, Any]
    node: yaml.Node = field(repr=False, compare=False)

    @property
    def where(self) -> str:
        """FILE:LINE of the object."""
        return f"{self.file}:{self.line}"

    @property
    def title(self) -> str:
        """Kind and name, for people."""
        return f"{self.obj['kind']} {self.obj['metadata']['name']}"

    def locate(self, path: str) -> str:
        """Return FILE:LINE of a field such as `spec.containers[0].image`, or of its nearest ancestor present."""
        node, line = self.node, self.line
        for step in re.findall(r"[^.\[\]]+", path):
            found = _child(node, step)
            if found is None:
                break
            key, node = found
            line = key.start_mark.line + 1
        return f"{self.file}:{line}"


def _child(node: yaml.Node, step: str) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == step), None)
    if isinstance(node, yaml.SequenceNode) and step.isdecimal() and int(step) < len(node.value):
        item = node.value[int(step)]
        return item, item
    return None


def load(paths: Iterable[Path]) -> list[Manifest]:
    """Read every file and directory named, in that order.

    :raises UsageError: a path is missing, or a directory holds no manifest.
    :raises TulleError: a file is not what it should be; says where.
    """
    manifests: list[Manifest] = []
    for path in paths:
        for file in _files(path):
            try:
                size = file.stat().st_size
                if size > LARGEST_FILE:
                    raise TulleError(f"{file} is too large", f"{size} bytes, more than {LARGEST_FILE}")
                text = file.read_bytes().decode()
            except OSError as error:
                raise UsageError(f"{file} cannot be read", error.strerror or str(error)) from error
            except UnicodeDecodeError as error:
                raise TulleError(f"{file} is not UTF-8 text", str(error)) from error
            manifests += parse(text, str(file))
    return manifests


def _files(path: Path) -> Sequence[Path]:
    if not path.exists():
        raise UsageError(f"{path} does not exist", "", "name a file of manifests, or a directory of them")
    if not path.is_dir():
        return [path]
    for name in _KUSTOMIZATIONS:
        if (path / name).exists():
            return _kustomization(path / name)
    files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file())
    if not files:
        raise UsageError(f"{path} holds no manifest", f"no file in it ends in {', '.join(_SUFFIXES)}")
    return files


def _kustomization(path: Path) -> Sequence[Path]:
    documents = _documents(path.read_text(), str(path))
    content = documents[0][0] if documents and isinstance(documents[0][0], dict) else {}
    further = sorted(content.keys() - _LISTING_ONLY)
    if further:
        raise TulleError(
            f"{path}: {', '.join(further)} would not be carried out",
            "Tulle follows a kustomization's list of resources and nothing else in it",
            f"render it first: kubectl kustomize {path.parent} > all.yaml && tulle up all.yaml",
        )
    return [file for entry in content.get("resources") or () for file in _files(path.parent / str(entry))]


def parse(text: str, file: str) -> list[Manifest]:
    """Read the objects in a file's text.

    :raises TulleError: broken YAML, or a document that is not a Kubernetes object; says line and column.
    """
    manifests: list[Manifest] = []
    for content, node in _documents(text, file):
        if content is None:
            continue
        manifests += _objects(content, node, file)
    return manifests


def _documents(text: str, file: str) -> list[tuple[Any, yaml.Node]]:
    found: list[tuple[Any, yaml.Node]] = []
    loader = Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            _check(node, file)
            found.append((loader.construct_document(node), node))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        why = " ".join(part for part in (error.context, error.problem) if part)
        raise TulleError(
            f"{where}: not valid YAML", why, "correct the file at that line and column"
        ) from error
    except yaml.YAMLError as error:
        raise TulleError(f"{file}: not valid YAML", str(error).replace("\n", " ")) from error
    except (ValueError, RecursionError) as error:
        raise TulleError(f"{file}: not valid YAML", str(error)) from error
    finally:
        loader.dispose()
    return found


def _check(document: yaml.Node, file: str) -> None:
    """Refuse keys given twice and documents that aliases blow up."""
    waiting, seen = [document], 0
    while waiting:
        node = waiting.pop()
        seen += 1
        if seen > _MOST_NODES:
            raise TulleError(
                f"{file}:{document.start_mark.line + 1}: too large",
                f"more than {_MOST_NODES} values in one document, aliases followed",
            )
        if isinstance(node, yaml.MappingNode):
            keys: dict[str, int] = {}
            for key, value in node.value:
                mark = key.start_mark
                if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                    if key.value in keys:
                        raise TulleError(
                            f"{file}:{mark.line + 1}:{mark.column + 1}: {key.value} is given twice",
                            f"the first is at line {keys[key.value]}",
                            "keep one of them",
                        )
                    keys[key.value] = mark.line + 1
                waiting.append(value)
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def _objects(content: Any, node: yaml.Node, file: str) -> list[Manifest]:
    line = node.start_mark.line + 1
    where = f"{file}:{line}"
    if not isinstance(content, dict):
        raise TulleError(
            f"{where}: not a Kubernetes object", f"a mapping is wanted here, not {type(content).__name__}"
        )
    for name in ("apiVersion", "kind"):
        if not isinstance(content.get(name), str) or not content[name]:
            raise TulleError(
                f"{where}: {name} is missing", "every Kubernetes object says its apiVersion and kind"
            )
    if content["kind"] == "List":
        items = _child(node, "items")
        nodes = items[1].value if items and isinstance(items[1], yaml.SequenceNode) else []
        return [
            manifest
            for item, item_node in zip(content.get("items") or (), nodes, strict=True)
            for manifest in _objects(item, item_node, file)
        ]
    metadata = content.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str) or not metadata["name"]:
        hint = (
            "generateName makes a new object at each start; give it a name"
            if isinstance(metadata, dict) and "generateName" in metadata
            else ""
        )
        raise TulleError(f"{where}: {content['kind']} without metadata.name", hint, "name the object")
    return [Manifest(file, line, content, node)]


def order(manifests: Sequence[Manifest]) -> list[Manifest]:
    """Return them in the order to apply: Namespaces, definitions of kinds, then as they stand."""
    return sorted(manifests, key=lambda manifest: _FIRST_KINDS.get(manifest.obj["kind"], 2))
