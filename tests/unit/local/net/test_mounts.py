"""Which mounts a container gets, in which order, on an imagined machine."""

import os

from tulle.local.net import Mount
from tulle.local.net.mounts import Step, closed_directories, plan

THERE = {"/", "/etc", "/etc/hosts", "/etc/resolv.conf", "/run", "/usr", "/usr/share", "/opt"}
LINKS = {"/var/run": "/run", "/etc/resolv.conf": "/run/systemd/stub-resolv.conf"}
FILES = {"/s/resolv.conf", "/s/hosts"}


def real_path(path: str) -> str:
    for link, target in LINKS.items():
        if path == link or path.startswith(link + "/"):
            return target + path[len(link) :]
    return path


def steps(*mounts: Mount, links: bool = True) -> list[Step]:
    return plan(
        mounts,
        real_path=real_path if links else lambda path: path,
        exists=THERE.__contains__,
        is_directory=lambda path: path not in FILES,
    )


def test_a_container_without_mounts_still_has_a_private_run() -> None:
    assert steps() == [Step("tmpfs", "/run")]


def test_removable_disks_stay_in_place() -> None:
    found = plan((), real_path=real_path, exists={"/run/media"}.__contains__, is_directory=bool)
    assert found == [
        Step("tmpfs", "/run"),
        Step("make_directory", "/run/media"),
        Step("bind", "/run/media", "/run/media"),
    ]


def test_what_exists_is_mounted_over() -> None:
    assert steps(Mount("/s/hosts", "/etc/hosts")) == [
        Step("tmpfs", "/run"),
        Step("bind", "/etc/hosts", "/s/hosts"),
    ]


def test_a_token_below_run_gets_its_place_in_the_private_one() -> None:
    assert steps(Mount("/s/token", "/var/run/secrets/tokens", read_only=True)) == [
        Step("tmpfs", "/run"),
        Step("make_directory", "/run/secrets/tokens"),
        Step("bind", "/run/secrets/tokens", "/s/token", read_only=True),
    ]


def test_a_resolver_file_that_is_a_link_into_run_is_made_there() -> None:
    assert steps(Mount("/s/resolv.conf", "/etc/resolv.conf"))[1:] == [
        Step("make_file", "/run/systemd/stub-resolv.conf"),
        Step("bind", "/run/systemd/stub-resolv.conf", "/s/resolv.conf"),
    ]


def test_a_missing_place_is_made_in_an_overlay_and_not_on_the_machine() -> None:
    assert steps(Mount("/s/config", "/etc/app/config"), Mount("/s/hosts", "/etc/hosts"), links=False) == [
        Step("tmpfs", "/run"),
        Step("overlay", "/etc"),
        Step("bind", "/etc/hosts", "/s/hosts"),
        Step("make_directory", "/etc/app/config"),
        Step("bind", "/etc/app/config", "/s/config"),
    ]


def test_a_missing_place_at_the_top_needs_a_private_root() -> None:
    assert steps(Mount("/s/data", "/data")) == [
        Step("root", "/"),
        Step("tmpfs", "/run"),
        Step("make_directory", "/data"),
        Step("bind", "/data", "/s/data"),
    ]


def test_a_mount_in_a_mount_comes_after_it_and_inside_it() -> None:
    assert steps(Mount("/s/inner", "/opt/app"), Mount("/s/outer", "/opt"))[1:] == [
        Step("bind", "/opt", "/s/outer"),
        Step("make_directory", "/opt/app"),
        Step("bind", "/opt/app", "/s/inner"),
    ]


class Machine:
    """Directories with their modes (owner root) and links."""

    def __init__(self, modes: dict[str, int], links: dict[str, str]) -> None:
        self._modes, self._links = modes, links

    def status_of(self, path: str) -> os.stat_result:
        return os.stat_result((0o040000 | self._modes.get(path, 0o755), 0, 0, 1, 0, 0, 0, 0, 0, 0))

    def read_link(self, path: str) -> str | None:
        return self._links.get(path)

    def closed(self, *paths: str, uid: int = 2102) -> list[str]:
        return closed_directories(paths, uid, uid, self.status_of, self.read_link)


def test_a_program_below_roots_home_has_a_closed_directory_on_its_way() -> None:
    machine = Machine({"/root": 0o700, "/root/.local": 0o700}, {})
    assert machine.closed("/root/.local/bin/app") == ["/root", "/root/.local"]
    assert machine.closed("/usr/bin/app") == []
    assert machine.closed("/root/.local/bin/app", uid=0) == []


def test_each_hop_of_a_link_has_its_own_way() -> None:
    machine = Machine(
        {"/root": 0o700, "/opt/deep": 0o750},
        {"/srv/venv/bin/python": "/root/pyenv/bin/python", "/root/pyenv": "../opt/deep/pyenv"},
    )
    assert machine.closed("/srv/venv/bin/python") == ["/root", "/opt/deep"]


def test_links_in_a_circle_end() -> None:
    assert Machine({}, {"/a/b": "c", "/a/c": "b"}).closed("/a/b/x") == []
