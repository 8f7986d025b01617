"""Run one of the example's programs: `python -m tulle.emojivoto web|emoji|voting|vote-bot|plain-voting|plain-emojisvc`.

SIGTERM and SIGINT end it with exit code 0 after open calls have been answered.
"""

import asyncio
import signal
import sys
import threading
from collections import Counter
from collections.abc import Coroutine
from typing import Any


def _program(name: str) -> Coroutine[Any, Any, None] | None:
    if name == "web":
        from tulle.emojivoto import web

        return web.serve()
    if name in ("emoji", "voting"):
        from tulle.emojivoto import services

        if name == "emoji":
            return services.serve("emojivoto.v1.EmojiService", services.emoji_handlers(), Counter())
        return services.serve("emojivoto.v1.VotingService", services.voting_handlers(Counter()), Counter())
    if name in ("plain-voting", "plain-emojisvc"):
        from tulle.emojivoto import plain

        return plain.serve(name.removeprefix("plain-"))
    return None


async def _until_signalled(program: Coroutine[Any, Any, None]) -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(program)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)


def main(arguments: list[str]) -> int:
    """Run the named program; return the exit code."""
    name = arguments[0] if arguments else ""
    if name == "vote-bot":
        from tulle.emojivoto import bot

        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        bot.run(stop)
        return 0
    program = _program(name)
    if program is None:
        sys.stderr.write(
            f"no program {name!r}: choose web, emoji, voting, vote-bot, plain-voting, plain-emojisvc\n"
        )
        return 2
    try:
        asyncio.run(_until_signalled(program))
    except asyncio.CancelledError:
        pass
    return 0


sys.exit(main(sys.argv[1:]))
