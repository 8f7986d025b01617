"""Where a person reads how a mesh comes up and what it does: plain lines, and on a terminal a live table."""

# ruff: noqa: D102 - the contract of each method is Screen's

import os
import sys

import click

from tulle.cli import live
from tulle.local.net.choose import Choice
from tulle.local.up import Mesh
from tulle.viz import verdict

__all__ = ["LiveScreen", "PlainScreen", "screen_for"]


class PlainScreen:
    """Lines, each complete when it is written; for files, pipes and logs."""

    def __init__(self, ready_fd: int | None = None) -> None:
        self._ready_fd = ready_fd
        # Why the mesh was no working one when it ended by itself; see tulle.viz.verdict.
        self.failures: list[str] = []

    def starting(self, choice: Choice) -> None:
        click.echo(f"network: {choice.mode} ({choice.reason})")

    def progress(self, text: str) -> None:
        click.echo(text)

    def published(self, service: str, port: int, url: str) -> None:
        click.echo(f"{service}:{port}  {url}")

    def ready(self, mesh: Mesh) -> None:
        click.echo(f"ready in {mesh.seconds:.1f} s; kubectl: export KUBECONFIG={mesh.kubeconfig}")
        sys.stdout.flush()
        if self._ready_fd is not None:
            self._leave_terminal(mesh)

    def _leave_terminal(self, mesh: Mesh) -> None:
        """Go on in the background: the caller has heard that all is ready, further words go to the log."""
        assert self._ready_fd is not None
        log = os.open(mesh.kubeconfig.parent / "tulle.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        os.write(self._ready_fd, b"ready\n")
        os.close(self._ready_fd)

    async def watch(self, mesh: Mesh) -> None:
        if self._ready_fd is not None:
            return
        click.echo("Ctrl-C stops it and leaves nothing behind")
        await live.print_plain(mesh.kubeconfig)

    async def ending(self, mesh: Mesh) -> None:
        from tulle.viz.client import NoMetrics

        try:
            summary = await live.totals(mesh.kubeconfig)
        except NoMetrics as error:
            self.failures = [str(error)]
            return
        click.echo("\n".join(verdict.lines(summary)))
        self.failures = verdict.failures(summary)


class LiveScreen(PlainScreen):
    """The same on a terminal, with tables that stay up to date once all is ready."""

    async def watch(self, mesh: Mesh) -> None:
        await live.show_tables(mesh.kubeconfig)


def screen_for(terminal: bool, ready_fd: int | None = None) -> PlainScreen:
    """Return the screen for this output."""
    return LiveScreen() if terminal and ready_fd is None else PlainScreen(ready_fd)
