"""The command line: parse, call, print. Nothing here decides.

Each verb is a module of this package with a click command named `command`; it is imported when it is called,
so that `tulle --help` stays fast.
"""

import importlib
import sys

import click

import tulle
from tulle.errors import TulleError

__all__ = ["main"]

VERBS: dict[str, str] = {
    "up": "Start manifests behind sidecars on this machine",
    "down": "Stop what `tulle up` started",
    "demo": "Run emojivoto and two more services in a mesh",
    "inject": "Add the sidecar to manifests",
    "uninject": "Take the sidecar out of manifests",
    "install": "Print the control plane's manifests",
    "controller": "Run the control plane",
    "check": "Verify the machine, the API, the control plane and each proxy",
    "stat": "Show golden metrics of workloads",
    "metrics": "Print a proxy's raw metrics",
    "exec": "Run a command inside a pod",
    "logs": "Print a container's log",
    "explain": "Show the decision the proxies would take for a request, and why",
    "kubeconfig": "Print the path of the kubeconfig",
    "version": "Print versions",
}


class LazyGroup(click.Group):
    """Commands named by VERBS, imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module and return its command."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"tulle.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(tulle.__version__, message="tulle %(version)s")
@click.option("--debug", is_flag=True, help="Show a traceback when something fails.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Tulle, an ultralight service mesh.

    Example: tulle up k8s/*.yaml
    """
    ctx.obj = {"debug": debug}


def main() -> None:
    """Run the command line; print a TulleError as its three parts instead of a traceback."""
    try:
        cli.main(standalone_mode=True)
    except TulleError as error:
        if "--debug" in sys.argv:
            raise
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        click.echo(f"error: {type(error).__name__}: {error}", err=True)
        click.echo(
            "  this is a fault in tulle itself\n  call again as `tulle --debug …` and report what it prints",
            err=True,
        )
        sys.exit(1)
