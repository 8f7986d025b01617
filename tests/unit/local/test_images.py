"""From image to program: whose rule counts, what is said when there is none, where the proxy is looked for."""

import sys
from pathlib import Path
from typing import Any

import pytest

from tulle.errors import UsageError
from tulle.local.images import NoProgram, expand, load_images, pod_specs, require_images
from tulle.local.proxy_binary import ProxyNotFound, find_proxy


def container(image: str, *command: str, args: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"name": "app", "image": image, "command": list(command), "args": list(args)}


def tulle_toml(folder: Path, text: str) -> Path:
    (folder / "tulle.toml").write_text(text)
    return folder / "app.yaml"


RULE = '[[images]]\nimage = "acme/app:*"\ncommand = ["{python}", "app.py", "{port}"]\n'


def test_a_command_that_is_a_program_here_runs_as_it_is(tmp_path: Path) -> None:
    images = load_images([tulle_toml(tmp_path, RULE)])
    assert images.program(container("acme/app:1", "sh", "-c", "true", args=("x",))).argv == (
        "sh",
        "-c",
        "true",
        "x",
    )


def test_a_command_that_is_none_and_an_image_of_its_own_take_the_rule_with_the_args(tmp_path: Path) -> None:
    images = load_images([tulle_toml(tmp_path, RULE)])
    for spec in (container("acme/app:1", "/bin/no-such", args=("-v",)), container("acme/app", args=("-v",))):
        program = images.program(spec)
        assert expand(program, program.argv, ip="127.0.0.9", port=80) == (
            sys.executable,
            "app.py",
            "80",
            "-v",
        )
        assert program.directory == tmp_path


@pytest.mark.parametrize(
    ("pattern", "image", "expected"),
    [
        ("acme/app", "acme/app:1.2", True),
        ("acme/app:*", "acme/app", True),
        ("acme/app:1", "acme/app:2", False),
        ("nginx", "docker.io/library/nginx:1.27", True),
        ("acme/*", "acme/app@sha256:abc", True),
        ("registry:5000/app", "registry:5000/app:3", True),
    ],
)
def test_patterns(tmp_path: Path, pattern: str, image: str, expected: bool) -> None:
    images = load_images([tulle_toml(tmp_path, f'[[images]]\nimage = "{pattern}"\ncommand = ["x"]\n')])
    if expected:
        assert images.program(container(image)).argv == ("x",)
    else:
        with pytest.raises(NoProgram):
            images.program(container(image))


def test_the_users_rule_comes_before_the_packages_own(tmp_path: Path) -> None:
    mine = '[[images]]\nimage = "buoyantio/voting:v1"\ncommand = ["mine"]\n'
    assert load_images([tulle_toml(tmp_path, mine)]).program(container("buoyantio/voting:v1")).argv == (
        "mine",
    )


@pytest.mark.parametrize(
    ("image", "command", "expected"),
    [
        ("docker.l5d.io/buoyantio/emojivoto-web:v11", (), "web"),
        ("docker.l5d.io/buoyantio/emojivoto-web:v11", ("emojivoto-vote-bot",), "vote-bot"),
        ("docker.l5d.io/buoyantio/emojivoto-emoji-svc:v11", (), "emoji"),
        ("docker.l5d.io/buoyantio/emojivoto-voting-svc:v11", (), "voting"),
        ("buoyantio/emojivoto-web:v11", ("emojivoto-vote-bot",), "vote-bot"),
        ("buoyantio/emojivoto-voting-svc:v10", (), "voting"),
        ("buoyantio/voting:v1", (), "plain-voting"),
        ("buoyantio/emojisvc:v1", (), "plain-emojisvc"),
    ],
)
def test_emojivoto_and_the_two_services_need_no_file(
    image: str, command: tuple[str, ...], expected: str
) -> None:
    argv = load_images([]).program(container(image, *command)).argv
    assert argv == ("{python}", "-m", "tulle.emojivoto", expected)


def test_an_image_without_a_program_names_file_container_image_and_three_lines() -> None:
    deployment = {
        "kind": "Deployment",
        "metadata": {"name": "shop"},
        "spec": {
            "template": {
                "spec": {"containers": [container("acme/app:1.2"), container("buoyantio/voting:v1")]}
            }
        },
    }
    with pytest.raises(NoProgram) as raised:
        require_images([("shop.yaml:12", deployment)], load_images([]))
    text = str(raised.value)
    for part in (
        "shop.yaml:12",
        "Deployment shop",
        "container app",
        "acme/app:1.2",
        "[[images]]",
        'image = "acme/app:*"',
        "command = ",
    ):
        assert part in text
    assert "voting" not in text


def test_each_image_without_a_program_gets_its_three_lines_once() -> None:
    containers = [container("acme/a:1"), container("acme/a:2"), container("acme/b")]
    with pytest.raises(NoProgram) as raised:
        require_images(
            [("f", {"kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": containers}})],
            load_images([]),
        )
    assert raised.value.next_step.count("[[images]]") == 2 and raised.value.what.count("\n") == 2


def test_every_kind_that_holds_pods_is_looked_into() -> None:
    spec: dict[str, Any] = {"containers": []}
    template = {"spec": {"template": {"spec": spec}}}
    assert list(pod_specs({"kind": "Pod", "spec": spec})) == [spec]
    for kind in ("Deployment", "StatefulSet", "DaemonSet", "Job", "ReplicaSet"):
        assert list(pod_specs({"kind": kind, **template})) == [spec]
    assert list(pod_specs({"kind": "CronJob", "spec": {"jobTemplate": template}})) == [spec]
    assert list(pod_specs({"kind": "List", "items": [{"kind": "Pod", "spec": spec}]})) == [spec]
    assert list(pod_specs({"kind": "Service", "spec": {}})) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[images]\n", "cannot be read"),
        ('[[image]]\nimage = "x"\n', "unknown table image"),
        ('[images]\nimage = "x"\n', "not a list of tables"),
        ('[[images]]\nimage = "x"\n', "image and command must both be given"),
        ('[[images]]\nimage = "x"\ncommand = "y"\n', "command has the wrong type"),
        ('[[images]]\nimage = "x"\ncommand = ["y"]\ncomand = 1\n', "unknown field comand"),
    ],
)
def test_a_broken_file_is_named_with_its_entry(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        load_images([tulle_toml(tmp_path, text)])
    assert str(tmp_path / "tulle.toml") in str(raised.value) and message in str(raised.value)


def test_a_port_placeholder_needs_a_container_port() -> None:
    program = load_images([]).program(container("tulle/proxy", args=("{port}",)))
    with pytest.raises(NoProgram):
        expand(program, ["{port}"], ip="", port=None)


def test_a_missing_proxy_lists_every_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TULLE_PROXY_BINARY", str(tmp_path / "nowhere"))
    with pytest.raises(ProxyNotFound) as raised:
        find_proxy()
    assert str(tmp_path / "nowhere") in str(raised.value)


def test_the_proxy_is_found_where_it_is_said_to_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    binary = tmp_path / "tulle-proxy"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    monkeypatch.setenv("TULLE_PROXY_BINARY", str(binary))
    assert find_proxy() == binary
