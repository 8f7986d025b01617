"""What a container sees of this machine's files: its own mounts, a private /run, its own names and resolver.

`plan` decides, purely, which mounts to make in which order; `carry_out` makes them in the caller's own mount
namespace. No file or directory of the machine is created or changed: a mount point that does not exist is made
in a tmpfs, in an overlay above the nearest directory that exists, or at the top of a private root.

/run is private for a second reason: name services (systemd-resolved, nscd) listen there, and the C library
would ask them instead of the mesh's DNS. Its symbolic links stay (some distributions reach all their programs
through one), and so does /run/media, below which removable disks with somebody's project may be mounted.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from tulle.local.net import kernel
from tulle.local.net.model import Mount

__all__ = ["Step", "carry_out", "closed_directories", "plan"]

_RUN = "/run"
_MOST_HOPS = 40  # symbolic links in a row, as the kernel has it
_SCRATCH = f"{_RUN}/.tulle"
_STATVFS_TO_MOUNT = {2: 2, 4: 4, 8: 8, 1024: 1024, 2048: 2048, 4096: 1 << 21}


@dataclass(frozen=True)
class Step:
    """One thing to do. `path` is where; `source` what is bound there.

    tmpfs: an empty file system over `path`. overlay: `path` becomes writable without its files changing.
    root: a private root with everything of the machine in it. make_directory, make_file: an empty mount point.
    open: everybody may pass through the directory to what is below it.
    """

    action: Literal["tmpfs", "overlay", "open", "root", "make_directory", "make_file", "bind"]
    path: str
    source: str = ""
    read_only: bool = False


def plan(
    mounts: Sequence[Mount],
    *,
    real_path: Callable[[str], str],
    exists: Callable[[str], bool],
    is_directory: Callable[[str], bool],
) -> list[Step]:
    """Return the steps for these mounts: first the places to make mount points in, then the mounts, outer ones first.

    The three functions look at the machine as it is before the first step; `real_path` follows symbolic links.
    A mount below another mount gets its mount point inside that one, as container runtimes do it.
    """
    run = real_path(_RUN)
    wanted = sorted(
        ((real_path(mount.target), mount) for mount in mounts), key=lambda pair: pair[0].count("/")
    )
    covered = {run, *(target for target, mount in wanted if is_directory(mount.source))}
    root = False
    overlays: set[str] = set()
    for target, _ in wanted:
        if not exists(target) and not _inside(target, covered):
            above = _ancestor(target, exists)
            root = root or above == "/"
            overlays.update({above} - {"/"})
    steps = [Step("root", "/")] if root else []
    steps.append(Step("tmpfs", run))
    media = f"{run}/media"
    if exists(media):
        steps += [Step("make_directory", media), Step("bind", media, media)]
    steps += [Step("overlay", path) for path in sorted(overlays) if not _inside(path, overlays)]
    for target, mount in wanted:
        if _inside(target, covered) or not exists(target):
            steps.append(Step("make_directory" if is_directory(mount.source) else "make_file", target))
        steps.append(Step("bind", target, mount.source, mount.read_only))
    return steps


def closed_directories(
    paths: Iterable[str],
    uid: int,
    gid: int,
    status_of: Callable[[str], os.stat_result],
    read_link: Callable[[str], str | None],
) -> list[str]:
    """Return the directories on the way to these paths through which a user may not pass, outer ones first.

    A program stands for an image, and an image is open to the user it runs as; but root's programs often lie below
    her home, which is closed to all others. Symbolic links are followed one by one, for each hop has its own way.
    """
    closed: set[str] = set()
    for path in paths:
        hops = 0
        at: str | None = os.path.normpath(path)
        while at is not None and hops < _MOST_HOPS:
            above = os.path.dirname(at)
            while above not in ("/", ""):
                if not _may_pass(status_of(above), uid, gid):
                    closed.add(above)
                above = os.path.dirname(above)
            there = _first_link(at, read_link)
            at = os.path.normpath(there) if there else None
            hops += 1
    return sorted(closed, key=lambda path: path.count("/"))


def _first_link(path: str, read_link: Callable[[str], str | None]) -> str | None:
    """Return the path with its first symbolic link followed; None when there is none in it."""
    parts = path.split("/")
    for count in range(2, len(parts) + 1):
        prefix = "/".join(parts[:count])
        target = read_link(prefix)
        if target is not None:
            return os.path.join(os.path.dirname(prefix), target, *parts[count:])
    return None


def _may_pass(status: os.stat_result, uid: int, gid: int) -> bool:
    if status.st_uid == uid:
        return bool(status.st_mode & 0o100)
    return bool(status.st_mode & (0o010 if status.st_gid == gid else 0o001))


def _inside(path: str, directories: Iterable[str]) -> bool:
    return any(path.startswith(directory + "/") for directory in directories)


def _ancestor(path: str, exists: Callable[[str], bool]) -> str:
    while path != "/" and not exists(path):
        path = os.path.dirname(path)
    return path


def carry_out(steps: Sequence[Step]) -> None:
    """Make the mounts in the calling process's mount namespace, which must be private.

    :raises OSError: the kernel refused a step; its text names the step.
    """
    if steps and steps[0].action == "root":
        _private_root()
        steps = steps[1:]
    # Sources may lie below a directory that a step hides, so they are held open first.
    sources = [
        step.source if step.action == "bind" else step.path
        for step in steps
        if step.action in ("bind", "open")
    ]
    held = {source: os.open(source, os.O_PATH | os.O_CLOEXEC) for source in sources}
    for number, step in enumerate(steps):
        if step.action == "tmpfs":
            links = [
                (entry.path, os.readlink(entry.path)) for entry in os.scandir(step.path) if entry.is_symlink()
            ]
            kernel.mount("tmpfs", step.path, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=0755")
            for path, target in links:
                os.symlink(target, path)
        elif step.action == "overlay":
            _overlay(step.path, step.path, number, None)
        elif step.action == "open":
            _overlay(
                step.path,
                f"/proc/self/fd/{held[step.path]}",
                number,
                stat.S_IMODE(os.stat(step.path).st_mode) | 0o011,
            )
        elif step.action == "make_directory":
            os.makedirs(step.path, mode=0o755, exist_ok=True)
        elif step.action == "make_file":
            os.makedirs(os.path.dirname(step.path), mode=0o755, exist_ok=True)
            os.close(os.open(step.path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        else:
            _bind(f"/proc/self/fd/{held[step.source]}", step)
    for descriptor in held.values():
        os.close(descriptor)


def _bind(source: str, step: Step) -> None:
    kernel.mount(source, step.path, None, kernel.MS_BIND | kernel.MS_REC)
    if step.read_only:
        # A user namespace may not drop the flags that the source was mounted with, so they are repeated.
        present = os.statvfs(step.path).f_flag
        kept = sum(flag for bit, flag in _STATVFS_TO_MOUNT.items() if present & bit)
        flags = kernel.MS_BIND | kernel.MS_REMOUNT | kernel.MS_RDONLY | kept
        kernel.mount("none", step.path, None, flags)


def _overlay(path: str, lower: str, number: int, mode: int | None) -> None:
    """Lay a private, writable copy over a directory; with `mode`, the copy has that mode."""
    upper, work = f"{_SCRATCH}/{number}/upper", f"{_SCRATCH}/{number}/work"
    os.makedirs(upper)
    os.makedirs(work)
    # The merged directory takes owner and mode from the upper one.
    status = os.stat(lower)
    os.chmod(upper, stat.S_IMODE(status.st_mode) if mode is None else mode)
    # In a user namespace the machine's root has no number that could be given to a file.
    with contextlib.suppress(OSError):
        os.chown(upper, status.st_uid, status.st_gid)
    kernel.mount("overlay", path, "overlay", 0, f"lowerdir={lower},upperdir={upper},workdir={work}")


def _private_root() -> None:
    root = _RUN  # any directory: the tmpfs that hides it becomes the root, and shows it again below itself
    machine_run = os.open(root, os.O_PATH | os.O_CLOEXEC)
    entries = [
        (entry.name, entry.is_symlink(), entry.is_dir(follow_symlinks=False)) for entry in os.scandir("/")
    ]
    kernel.mount("tmpfs", root, "tmpfs", kernel.MS_NOSUID, "mode=0755")
    for name, is_link, is_directory in entries:
        here, there = f"/{name}", f"{root}/{name}"
        if is_link:
            os.symlink(os.readlink(here), there)
            continue
        if is_directory:
            os.mkdir(there)
        else:
            os.close(os.open(there, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        source = f"/proc/self/fd/{machine_run}" if here == root else here
        kernel.mount(source, there, None, kernel.MS_BIND | kernel.MS_REC)
    os.close(machine_run)
    kernel.pivot_root(root)
