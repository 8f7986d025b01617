"""`tulle up FILE…`: parse the call, choose the network, run the mesh, print what happens."""

import os
import subprocess
import sys
from pathlib import Path

import click

from tulle.cli.network import mode_option

__all__ = ["command"]


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@mode_option
@click.option(
    "--name", default="tulle", show_default=True, metavar="NAME", help="Name of this mesh; several may run."
)
@click.option(
    "--ready-within",
    type=click.FloatRange(min=1),
    default=180.0,
    show_default=True,
    metavar="SECONDS",
    help="Give up when not everything is ready by then.",
)
@click.option("--detach", is_flag=True, help="Return when all is ready; stop it later with `tulle down`.")
@click.option("--ready-fd", type=int, hidden=True)
def command(
    files: tuple[Path, ...], mode: str, name: str, ready_within: float, detach: bool, ready_fd: int | None
) -> None:
    """Start manifests behind sidecars on this machine, without a cluster.

    FILES are files or directories of Kubernetes manifests. Every pod gets a sidecar unless its annotations say
    otherwise. Ctrl-C ends everything and leaves nothing behind.

    Example: tulle up k8s/ --mode userns
    """
    from tulle.errors import UsageError
    from tulle.local import startup

    if not files:
        raise UsageError(
            "nothing to start",
            "no file was named",
            "name files or directories of manifests: tulle up k8s/, or try: tulle demo",
        )
    plan = startup.prepare(files, wish=mode, name=name)  # type: ignore[arg-type]
    if detach:
        sys.exit(_detached())
    from tulle.cli.screens import screen_for

    startup.start(plan, screen_for(sys.stdout.isatty(), ready_fd), ready_within=ready_within)


def _detached() -> int:
    """Run the same call in a session of its own; return its exit code, or 0 as soon as it says that it is ready."""
    read, write = os.pipe()
    words = [word for word in sys.argv[1:] if word != "--detach"]
    child = subprocess.Popen(
        [sys.executable, "-m", "tulle", *words, "--ready-fd", str(write)],
        stdin=subprocess.DEVNULL,
        pass_fds=[write],
        start_new_session=True,
    )
    os.close(write)
    try:
        with os.fdopen(read, "rb") as pipe:
            said = pipe.read()
        if said.startswith(b"ready"):
            child.returncode = 0  # it goes on without us
            return 0
        return child.wait()
    except KeyboardInterrupt:
        child.terminate()
        return child.wait() or 1
