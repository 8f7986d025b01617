"""Watches over HTTP: one JSON event a line, for as long as the client listens or its timeout lasts."""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from tulle.local.api import decoding
from tulle.local.api.api import Api
from tulle.local.api.errors import ApiError, bad_request
from tulle.local.api.http.answers import Exchange
from tulle.local.api.http.request import Accepted, Query
from tulle.local.api.objects import Obj
from tulle.local.api.reads import Watched, WatchOptions, bookmark, revision_of
from tulle.local.api.registry import ResourceType
from tulle.local.api.selectors import Selector
from tulle.local.api.tables import metadata_only, printer_for, table

__all__ = ["serve_watch", "watch_options"]

SHORTEST_TIMEOUT = 1800
"""Seconds after which a watch ends that asked for no timeout; up to twice as long, so that not all end at once."""


def watch_options(query: Query, selector: Selector) -> WatchOptions:
    """Read what a watch asks for; raises 400 for what does not go together."""
    initial = query.flag("sendInitialEvents")
    match = query.text("resourceVersionMatch")
    if "sendInitialEvents" in query.names() and match != "NotOlderThan":
        raise bad_request("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
    if match and "sendInitialEvents" not in query.names():
        raise bad_request("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")
    bookmarks = query.flag("allowWatchBookmarks")
    revision = revision_of(query.text("resourceVersion"))
    seconds = query.number("timeoutSeconds")
    timeout = seconds if seconds else SHORTEST_TIMEOUT * (1 + random.random())
    return WatchOptions(
        selector,
        None if initial else revision,
        bookmarks,
        initial_events=initial and bookmarks,
        timeout=float(timeout),
    )


async def serve_watch(
    api: Api,
    exchange: Exchange,
    resource: ResourceType,
    version: str,
    namespace: str | None,
    options: WatchOptions,
    accepted: Accepted,
    include: str,
) -> None:
    """Send events until the end; an error after the first byte becomes an ERROR event, as clients expect."""
    events = _encoded(api, resource, version, namespace, options, accepted, include)
    async with asyncio.TaskGroup() as tasks:
        stream = tasks.create_task(_send(exchange, events))
        listener = tasks.create_task(_end_with_client(exchange, stream))
        await asyncio.wait((stream,))
        listener.cancel()


async def _send(exchange: Exchange, events: AsyncGenerator[bytes, None]) -> None:
    await exchange.start(200, b"application/json")
    await exchange.chunk(b"")
    async with aclosing(events):
        async for line in events:
            await exchange.chunk(line)
    await exchange.chunk(b"", more=False)


async def _end_with_client(exchange: Exchange, stream: asyncio.Task[None]) -> None:
    await exchange.disconnected()
    stream.cancel()


async def _encoded(
    api: Api,
    resource: ResourceType,
    version: str,
    namespace: str | None,
    options: WatchOptions,
    accepted: Accepted,
    include: str,
) -> AsyncGenerator[bytes, None]:
    try:
        async for event in api.reader.watch(resource, namespace, options):
            yield _line(api, resource, version, event, accepted, include)
    except ApiError as error:
        yield msgspec.json.encode({"type": "ERROR", "object": error.status}) + b"\n"


def _line(
    api: Api, resource: ResourceType, version: str, event: Watched, accepted: Accepted, include: str
) -> bytes:
    if event.record is None:
        shown: Obj = bookmark(resource, version, event)
    else:
        shown = decoding.in_version(resource, event.record.obj, version)
        if accepted.form == "object" and shown is event.record.obj:
            return b'{"type":"' + event.type.encode() + b'","object":' + event.record.json + b"}\n"
    if accepted.form == "table":
        printer = printer_for(resource, version)
        metadata = {"resourceVersion": str(event.revision)}
        if event.record is None:
            row_object = {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": shown["metadata"],
            }
            rows = [{"cells": [], "object": row_object}]
            columns = printer.definitions()
            shown = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
            shown |= {"columnDefinitions": columns, "rows": rows}
        else:
            shown = table(printer, [shown], api.clock.now(), metadata=metadata, include=include)
    elif accepted.form == "metadata":
        shown = metadata_only(shown)
    return msgspec.json.encode({"type": event.type, "object": shown}) + b"\n"
