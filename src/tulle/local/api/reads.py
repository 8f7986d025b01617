"""Get, list and watch over the store: selectors, pages, resource versions, bookmarks."""

import asyncio
import base64
import binascii
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

from tulle.clock import Clock
from tulle.local.api.errors import ApiError, bad_request, expired, not_found
from tulle.local.api.objects import Obj
from tulle.local.api.registry import ResourceType
from tulle.local.api.selectors import EVERYTHING, Selector
from tulle.local.api.store import Change, Collection, Record, Store

__all__ = [
    "BOOKMARK_SECONDS",
    "INITIAL_EVENTS_END",
    "Match",
    "Page",
    "Reader",
    "WatchOptions",
    "Watched",
    "bookmark",
    "revision_of",
    "visible",
]

MAX_SNAPSHOTS = 32
"""Unfinished paged lists that are remembered; the oldest continue token beyond gets 410."""

BOOKMARK_SECONDS = 15.0
"""How often an idle watch that wants bookmarks gets one."""

INITIAL_EVENTS_END = "k8s.io/initial-events-end"
Match: TypeAlias = Literal["", "Exact", "NotOlderThan"]


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list."""

    records: list[Record]
    revision: int
    continue_token: str = ""
    remaining: int | None = None


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """What a watcher asks for."""

    selector: Selector = EVERYTHING
    revision: int | None = None
    """Start after this one; None: first everything there is, then changes."""
    bookmarks: bool = False
    initial_events: bool = False
    """End the initial events with a marked bookmark (streaming list)."""
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Watched:
    """One event for a watcher; `record` None: a bookmark at `revision`."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    record: Record | None
    revision: int
    initial_end: bool = False


def visible(change: Change, namespace: str | None, selector: Selector) -> Watched | None:
    """Return what a watcher of a namespace and a selection sees of a change, or None.

    An object that stops matching is DELETED for that watcher, one that starts to match is ADDED.
    """
    obj = change.record.obj
    if namespace is not None and (obj["metadata"].get("namespace") or "") != namespace:
        return None
    if not selector:
        return Watched(change.type, change.record, change.revision)
    before = change.previous is not None and selector.matches(change.previous.obj)
    now = change.type != "DELETED" and selector.matches(obj)
    if now:
        return Watched("MODIFIED" if before else "ADDED", change.record, change.revision)
    return Watched("DELETED", change.record, change.revision) if before else None


class Reader:
    """Reads the store for clients; never changes it."""

    def __init__(self, store: Store, clock: Clock, *, bookmark_seconds: float = BOOKMARK_SECONDS) -> None:
        self._store, self._clock, self._bookmark_seconds = store, clock, bookmark_seconds
        self._snapshots: OrderedDict[str, tuple[list[Record], int]] = OrderedDict()

    def get(self, resource: ResourceType, namespace: str | None, name: str) -> Record:
        """Return an object; raise 404."""
        record = self._store.get(resource.key, namespace, name)
        if record is None:
            raise not_found(resource.plural, resource.group, name)
        return record

    def list_page(
        self,
        resource: ResourceType,
        namespace: str | None,
        selector: Selector = EVERYTHING,
        *,
        limit: int = 0,
        token: str = "",
        revision: int | None = None,
        match: Match = "",
    ) -> Page:
        """Return a page of a list, ordered by namespace and name; pages of one list show one moment.

        Raises 410 for a continue token that is too old, and for an exact revision that is not the present one.
        """
        if token:
            return self._next_page(token, limit)
        if revision is not None:
            self._check_revision(resource, revision, match)
        collection = self._store.collection(resource.key)
        records = [collection.records[key] for key in collection.sorted_keys(namespace)]
        if selector:
            records = [record for record in records if selector.matches(record.obj)]
        return self._page(records, self._store.revision, 0, limit)

    def _check_revision(self, resource: ResourceType, revision: int, match: Match) -> None:
        current = self._store.revision
        if revision > current:
            error = ApiError(
                504, "Timeout", f"Too large resource version: {revision}, current: {current}", retry_after=1
            )
            error.details["causes"] = [
                {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
            ]
            raise error
        if match == "Exact" and self._store.changes_since(self._store.collection(resource.key), revision):
            raise expired(
                f"The provided resource version {revision} is not available any more: the present one is {current}"
            )

    def _page(self, records: list[Record], revision: int, start: int, limit: int, key: str = "") -> Page:
        end = start + limit
        if limit <= 0 or end >= len(records):
            self._snapshots.pop(key, None)
            return Page(records[start:], revision)
        if not key:
            key = secrets.token_hex(8)
            self._snapshots[key] = (records, revision)
            while len(self._snapshots) > MAX_SNAPSHOTS:
                self._snapshots.popitem(last=False)
        token = base64.urlsafe_b64encode(msgspec.json.encode([key, end])).decode()
        return Page(records[start:end], revision, token, len(records) - end)

    def _next_page(self, token: str, limit: int) -> Page:
        try:
            key, start = msgspec.json.decode(base64.urlsafe_b64decode(token), type=tuple[str, int])
        except (ValueError, binascii.Error, msgspec.DecodeError) as error:
            raise bad_request(f"continue key is not valid: {error}") from error
        snapshot = self._snapshots.get(key)
        if snapshot is None or start < 0:
            raise expired(
                "The provided continue parameter is too old to display a consistent list result. "
                "You can start a new list without the continue parameter."
            )
        return self._page(snapshot[0], snapshot[1], start, limit, key)

    async def watch(
        self, resource: ResourceType, namespace: str | None, options: WatchOptions
    ) -> AsyncIterator[Watched]:
        """Yield changes until the timeout; raise 410 when the start, or a slow watcher's place, is compacted away."""
        collection = self._store.collection(resource.key)
        deadline = None if options.timeout is None else self._clock.monotonic() + options.timeout
        if options.revision is None:
            seen = self._store.revision
            for event in self._initial(collection, namespace, options, seen):
                yield event
        else:
            seen = options.revision
            self._store.changes_since(collection, seen)
        while True:
            changed = collection.changed
            changes = self._store.changes_since(collection, seen)
            for change in changes:
                seen = change.revision
                seen_event = visible(change, namespace, options.selector)
                if seen_event is not None:
                    yield seen_event
            if changes:
                continue
            if self._store.collection(resource.key) is not collection:
                raise expired(f"{resource.plural} is not served any more")
            idle = await self._wait(changed, options, deadline)
            if (
                idle
                and options.bookmarks
                and not collection.changed.is_set()
                and changed is collection.changed
            ):
                # Nothing of this resource changed, so the store's present revision is a safe place to continue from.
                seen = self._store.revision
                yield Watched("BOOKMARK", None, seen)
            if deadline is not None and self._clock.monotonic() >= deadline:
                return

    def _initial(
        self, collection: Collection, namespace: str | None, options: WatchOptions, revision: int
    ) -> Iterator[Watched]:
        for key in collection.sorted_keys(namespace):
            record = collection.records.get(key)
            if record is not None and record.revision <= revision and options.selector.matches(record.obj):
                yield Watched("ADDED", record, record.revision)
        if options.initial_events:
            yield Watched("BOOKMARK", None, revision, initial_end=True)

    async def _wait(self, changed: asyncio.Event, options: WatchOptions, deadline: float | None) -> bool:
        """Wait for a change, a bookmark's time or the deadline; tell whether nothing changed."""
        times = [self._bookmark_seconds] if options.bookmarks else []
        if deadline is not None:
            times.append(max(0.0, deadline - self._clock.monotonic()))
        try:
            async with asyncio.timeout(min(times) if times else None):
                await changed.wait()
        except TimeoutError:
            return True
        return False


def revision_of(text: str | None) -> int | None:
    """Read a resourceVersion parameter: None when absent or "0" (any state will do); raise 400 for what is no number."""
    if text in (None, "", "0"):
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise bad_request(f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax')
    return int(text)


def bookmark(resource: ResourceType, version: str | None, event: Watched) -> Obj:
    """Return the object of a bookmark event."""
    metadata: Obj = {"resourceVersion": str(event.revision), "creationTimestamp": None}
    if event.initial_end:
        metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
    return {"kind": resource.kind, "apiVersion": resource.api_version(version), "metadata": metadata}
