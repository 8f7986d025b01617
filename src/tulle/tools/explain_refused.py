"""Why one request was refused or failed: the entry that a sidecar keeps of it under its id, found and put into lines."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec

from tulle.kube.client import ApiError, Unreachable

__all__ = ["Asked", "Found", "ask", "lines"]

AT_ONCE = 8
"""Sidecars that are asked at the same time."""

Ask = Callable[[str, str], Awaitable[tuple[int, bytes]]]
"""GET a path from a pod's admin port: (pod, path) to status and body."""


@dataclass(frozen=True)
class Found:
    """What one pod's sidecar knows of the request."""

    pod: str
    entry: dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """The answers of all sidecars that were asked."""

    found: tuple[Found, ...]
    silent: tuple[tuple[str, str], ...]
    """Pods whose sidecars could not be asked, and why."""


async def ask(get: Ask, pods: list[str], request_id: str) -> Asked:
    """Ask these pods' sidecars for the request of this id: the client's and the server's may both know it."""
    path = f"/explain/{quote(request_id, safe='')}"
    places = asyncio.Semaphore(AT_ONCE)

    async def one(pod: str) -> Found | tuple[str, str] | None:
        async with places:
            try:
                status, body = await get(pod, path)
                if status == 404:
                    return None
                if status != 200:
                    return pod, f"it answers {status}: {body[:200].decode(errors='replace').strip()}"
                return Found(pod, msgspec.json.decode(body, type=dict[str, Any]))
            except ApiError as error:
                if error.status in (401, 403):
                    raise
                return pod, error.message.strip()
            except (Unreachable, msgspec.MsgspecError) as error:
                return pod, str(error)

    try:
        async with asyncio.TaskGroup() as tasks:
            asking = [tasks.create_task(one(pod)) for pod in pods]
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    answers = [task.result() for task in asking]
    return Asked(
        tuple(answer for answer in answers if isinstance(answer, Found)),
        tuple(answer for answer in answers if isinstance(answer, tuple)),
    )


def lines(found: Found) -> Iterator[str]:
    """Yield an entry as lines for people: the request, the answer, and how each rule looked at it."""
    entry = found.entry
    derivation: dict[str, Any] = entry.get("derivation") or {}

    def said(name: str, of: dict[str, Any] = entry) -> str:
        return str(of.get(name) or "")

    yield f"{said('request_id')} {said('direction')} in the sidecar of pod {found.pod}, {said('time')}"
    yield ""
    request = " ".join(filter(None, (said("method"), said("authority") + said("path"))))
    yield _line("request", request or "could not be read")
    if said("client_id"):
        yield _line("client", said("client_id"))
    if said("policy", derivation):
        yield _line("policy", said("policy", derivation))
    if rule := said("rule") or said("rule", derivation):
        yield _line("rule", rule)
    for match in derivation.get("matches") or ():
        yield from _match(match)
    yield from _more("match", derivation.get("matches"), derivation.get("matches_weighed"))
    for authorization in derivation.get("authorizations") or ():
        yield from _authorization(authorization)
    yield from _more(
        "authorization", derivation.get("authorizations"), derivation.get("authorizations_weighed")
    )
    yield ""
    verdict = f"REFUSED: {said('status')} ({said('reason')}: {said('meaning')})"
    yield _line("verdict", verdict)
    if said("detail"):
        yield _line("because", said("detail"))
    if said("hint"):
        yield _line("hint", said("hint"))


def _line(label: str, text: str) -> str:
    return f"{label:<10} {text}"


def _match(weighed: dict[str, Any]) -> Iterator[str]:
    asked = f"{weighed.get('rule')}: {weighed.get('asks')}"
    match weighed.get("outcome"):
        case "matched":
            yield _line("match", asked)
        case "shadowed":
            yield _line("  also", f"{asked}: holds too, but comes later")
        case "wrong-host":
            yield _line("  not", f"{asked}: for another host")
        case _:
            saw = f", saw {weighed['saw']}" if weighed.get("saw") else ""
            yield _line("  not", f"{asked}: {weighed.get('because') or 'does not hold'}{saw}")


def _authorization(authorization: dict[str, Any]) -> Iterator[str]:
    name = authorization.get("authorization")
    if authorization.get("lacks"):
        yield _line("  not", f"{name} needs {authorization['lacks']}, saw {authorization.get('saw')}")
    else:
        yield _line("allowed by", str(name))


def _more(what: str, shown: list[Any] | None, weighed: int | None) -> Iterator[str]:
    if (weighed or 0) > len(shown or ()):
        left = (weighed or 0) - len(shown or ())
        yield _line("", f"and {left} more {what}{'es' if what == 'match' else 's'}")
