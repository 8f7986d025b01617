"""How late the event loop is: one callback that hogs it delays every proxy, and this is where it shows."""

import asyncio
import logging

from tulle.clock import Clock

__all__ = ["Lag"]

log = logging.getLogger("tulle.control")

EVERY_SECONDS = 0.5
WORTH_TELLING_SECONDS = 1.0
DECAY = 0.9


class Lag:
    """Measures by sleeping: `worst` is the longest delay seen lately, in seconds, and fades away."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.worst = 0.0

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            asked = self._clock.monotonic()
            await asyncio.sleep(EVERY_SECONDS)
            self.note(self._clock.monotonic() - asked - EVERY_SECONDS)

    def note(self, late: float) -> None:
        """Take one measurement."""
        self.worst = max(late, self.worst * DECAY)
        if late > WORTH_TELLING_SECONDS:
            log.warning("the event loop was blocked for %.1f s", late)
