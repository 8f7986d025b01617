"""Carries out the actions of probes and hooks (http, tcp, exec, grpc, sleep) and repeats probes.

What a result means is for the pod machine to say. A probe that has not succeeded yet is tried more often than its
period says, so that a pod counts as ready when it is ready and not up to a period later; such an early look can only
succeed: failures count once per period.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tulle.errors import TulleError
from tulle.local.api.objects import Obj
from tulle.local.net.model import Network
from tulle.local.pods.grpc_health import HealthError, check_health
from tulle.local.pods.http_get import HttpError, http_status
from tulle.local.pods.inside import Outcome
from tulle.local.pods.spec import Probe, ProbeKind

__all__ = ["EARLY_LOOK_SECONDS", "ActionFailed", "Actions", "port_number", "probe_forever"]

EARLY_LOOK_SECONDS = 0.1
"""Pause before the second look; it grows by half each time until it reaches the period."""

EARLY_LOOK_GROWTH = 1.5


class ActionFailed(Exception):
    """A probe or hook did not succeed; the text is what its Event says."""


class Performer(Protocol):
    """What carries out the action of a probe."""

    async def perform(self, action: Mapping[str, Any], timeout: float) -> None:
        """Raise ActionFailed when the action does not succeed in time."""
        ...


RunInside = Callable[[list[str], float], Awaitable[Outcome]]


@dataclass(frozen=True, slots=True)
class Actions:
    """Carries out actions for one container at one address."""

    network: Network
    ip: str
    container: Obj
    run_inside: RunInside

    async def perform(self, action: Mapping[str, Any], timeout: float) -> None:
        """Do what a probe or hook says.

        Raises ActionFailed when it does not succeed within `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._perform(action, timeout)
        except TimeoutError as error:
            raise ActionFailed(f"{_described(action)}: no success within {timeout:g} s") from error
        except (OSError, HttpError, HealthError, TulleError, ValueError) as error:
            raise ActionFailed(f"{_described(action)}: {error}") from error

    async def _perform(self, action: Mapping[str, Any], timeout: float) -> None:
        if action.get("httpGet"):
            await self._http(action["httpGet"])
        elif action.get("tcpSocket"):
            where = action["tcpSocket"]
            _, writer = await self.network.dial(
                where.get("host") or self.ip, port_number(where["port"], self.container)
            )
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        elif action.get("grpc"):
            port = int(action["grpc"]["port"])
            streams = await self.network.dial(self.ip, port)
            await check_health(
                streams, authority=f"{self.ip}:{port}", service=action["grpc"].get("service") or ""
            )
        elif action.get("exec"):
            outcome = await self.run_inside(list(action["exec"].get("command") or ()), timeout)
            if outcome.exit_code != 0:
                raise ActionFailed(outcome.output or f"command ended with exit code {outcome.exit_code}")
        elif action.get("sleep"):
            await asyncio.sleep(float(action["sleep"].get("seconds") or 0))
        else:
            raise ActionFailed(f"action {', '.join(action) or '(none)'} is not carried out here")

    async def _http(self, get: Mapping[str, Any]) -> None:
        port, host = port_number(get["port"], self.container), get.get("host") or self.ip
        path = get.get("path") or "/"
        headers = {header["name"]: header.get("value") or "" for header in get.get("httpHeaders") or ()}
        tls = str(get.get("scheme") or "HTTP").upper() == "HTTPS"
        streams = await self.network.dial(host, port)
        path = path if path.startswith("/") else f"/{path}"
        status = await http_status(streams, host=f"{host}:{port}", path=path, headers=headers, tls=tls)
        if not 200 <= status < 400:
            raise ActionFailed(f"HTTP probe failed with statuscode: {status}")


def port_number(port: int | str, container: Obj) -> int:
    """Return a probe's port; a name is one of the container's.

    Raises ValueError for a name that the container does not have.
    """
    if isinstance(port, int) or port.isdigit():
        return int(port)
    for entry in container.get("ports") or ():
        if entry.get("name") == port:
            return int(entry["containerPort"])
    raise ValueError(f"the container has no port named {port!r}")


async def probe_forever(
    actions: Performer,
    probe: Probe,
    tell: Callable[[bool, str, bool], None],
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Probe until cancelled; `tell(ok, message, counts)` hears every result.

    The first failure that counts comes one period after the first look: so long an app has to come up.
    """
    early = probe.kind is not ProbeKind.LIVENESS
    await sleep(probe.initial_delay or (0.0 if early else probe.period))
    pause = min(EARLY_LOOK_SECONDS, probe.period)
    waited = 0.0 if early else probe.period
    while True:
        ok, message = True, ""
        try:
            await actions.perform(probe.action, probe.timeout)
        except ActionFailed as failure:
            ok, message = False, str(failure)
        counts = ok or waited >= probe.period
        tell(ok, message, counts)
        early &= not ok
        step = (
            min(pause, max(probe.period - waited, EARLY_LOOK_SECONDS))
            if early and not counts
            else probe.period
        )
        if early and counts:
            step, waited, pause = min(pause, probe.period), 0.0, pause
        pause *= EARLY_LOOK_GROWTH
        await sleep(step)
        waited = probe.period if not early else waited + step


def _described(action: Mapping[str, Any]) -> str:
    if action.get("httpGet"):
        get = action["httpGet"]
        return (
            f"Get {str(get.get('scheme') or 'http').lower()} port {get['port']} path {get.get('path') or '/'}"
        )
    if action.get("tcpSocket"):
        return f"dial tcp port {action['tcpSocket']['port']}"
    if action.get("grpc"):
        return f"grpc health on port {action['grpc']['port']}"
    if action.get("exec"):
        return f"command {' '.join(action['exec'].get('command') or ())!r}"
    return "action"
