"""Writes docs/img/live-table.svg from a mesh that runs now: `python scripts/picture.py KUBECONFIG`."""

import asyncio
import io
import re
import sys
from contextlib import aclosing
from pathlib import Path

from rich.console import Console

from tulle.cli.live import follow, tables

OUTPUT = Path(__file__).parents[1] / "docs/img/live-table.svg"


async def main(kubeconfig: str) -> None:
    """Draw one look at the mesh."""
    async with aclosing(follow(Path(kubeconfig), 1.0)) as views:
        view = await anext(views)
    console = Console(record=True, width=118, file=io.StringIO(), force_terminal=True)
    console.print("[bold]$ tulle demo[/bold]")
    console.print(tables(view))
    svg = console.export_svg(title="tulle demo")
    # Nothing in the picture is to be fetched from elsewhere: the reader's own monospace font will do.
    OUTPUT.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))


asyncio.run(main(sys.argv[1]))
