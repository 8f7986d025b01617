"""The state machine that keeps one kind in step with the API: list, watch, resume, relist. It does no I/O.

The shell asks `next_step()` what to do (List, Watch or Pause), does it, and tells the outcome by `page()`, `event()`,
`ended()` or `failed()`; the first two return the changes to apply to the store.

    Listing ──last page──► Watching ──ended──► Watching (from the last resource version)
       ▲                      │
       │◄── 410 (status or in-stream) ──┘         any other failure ──► Pause (full jitter) ──► where it was

A relist is compared with the store, so that an object deleted while nobody watched is reported as deleted. Until a
relist is complete the store keeps what it had: a broken list never empties the World.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

import msgspec

from tulle.kube.kinds import Kind
from tulle.kube.objects import View, decode_view

__all__ = [
    "Absent",
    "Change",
    "Event",
    "Expired",
    "Failure",
    "List",
    "Page",
    "Pause",
    "Phase",
    "Reflector",
    "Step",
    "Throttled",
    "Trouble",
    "Watch",
]

PAGE_SIZE = 500
WATCH_SECONDS = 290.0
WATCH_JITTER = 20.0
BACKOFF_FIRST = 0.2
BACKOFF_MAX = 30.0
ABSENT_RETRY = 5.0
RETRY_AFTER_MAX = 60.0

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class List:
    """Fetch one page. Version "0" is answered from the API's cache, "" asks for the newest state."""

    api_version: str
    resource_version: str
    continue_token: str = ""
    limit: int = PAGE_SIZE


@dataclass(frozen=True, slots=True)
class Watch:
    """Stream events after `resource_version`; the server is asked to end the stream after `timeout_seconds`."""

    api_version: str
    resource_version: str
    timeout_seconds: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing for `seconds`."""

    seconds: float


Step = List | Watch | Pause


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list: objects as raw JSON."""

    items: tuple[msgspec.Raw, ...]
    resource_version: str
    continue_token: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a watch stream."""

    type: str
    object: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Expired:
    """The resource version or the continue token is too old (410)."""


@dataclass(frozen=True, slots=True)
class Absent:
    """The API does not serve this kind or version (404)."""


@dataclass(frozen=True, slots=True)
class Throttled:
    """The API asked to wait `retry_after` seconds (429)."""

    retry_after: float


@dataclass(frozen=True, slots=True)
class Trouble:
    """Anything else: a broken connection, a 5xx, a refusal. `reason` is for people."""

    reason: str


Failure = Expired | Absent | Throttled | Trouble


@dataclass(frozen=True, slots=True)
class Change:
    """An object came, changed (`old` and `new`) or went (`new` is None)."""

    old: View | None
    new: View | None


class Phase(Enum):
    """What the reflector is about."""

    LISTING = auto()
    WATCHING = auto()


class _BareMetadata(msgspec.Struct, gc=False, rename="camel"):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""


class _Bare(msgspec.Struct, gc=False):
    metadata: _BareMetadata = msgspec.field(default_factory=_BareMetadata)


class _Status(msgspec.Struct, gc=False):
    code: int = 0
    reason: str = ""
    message: str = ""


@dataclass
class Reflector:
    """One kind's list-and-watch. `random` yields numbers in [0, 1); `store` holds what is known now."""

    kind: Kind
    random: Callable[[], float]
    store: dict[Key, View] = field(default_factory=dict)
    phase: Phase = Phase.LISTING
    synced: bool = False
    absent: bool = False
    resource_version: str = "0"
    relists: int = 0
    failures: int = 0
    trouble: str = ""
    unreadable: dict[str, str] = field(default_factory=dict)
    _version_index: int = 0
    _continue: str = ""
    _listed: dict[Key, View] = field(default_factory=dict)
    _list_from: str = "0"
    _pause: float = 0.0

    def __repr__(self) -> str:
        state = "absent" if self.absent else "synced" if self.synced else "not synced"
        return f"<Reflector {self.kind} {self.phase.name.lower()} rv={self.resource_version} {state} n={len(self.store)}>"

    @property
    def api_version(self) -> str:
        """The version of the kind that is being read."""
        return self.kind.versions[self._version_index]

    def next_step(self) -> Step:
        """Return what to do now; a pause is returned once."""
        if self._pause:
            seconds, self._pause = self._pause, 0.0
            return Pause(seconds)
        if self.phase is Phase.LISTING:
            return List(self.api_version, "" if self._continue else self._list_from, self._continue)
        timeout = WATCH_SECONDS + (self.random() * 2 - 1) * WATCH_JITTER
        return Watch(self.api_version, self.resource_version, int(timeout))

    def page(self, page: Page) -> list[Change]:
        """Take one page; on the last one return the difference to the store."""
        assert self.phase is Phase.LISTING, self
        for raw in page.items:
            if (view := self._decode(raw)) is not None:
                self._listed[view.namespace, view.name] = view
            elif known := self.store.get(key := _key(raw)):
                self._listed[key] = known
        if page.continue_token:
            self._continue = page.continue_token
            return []
        listed, self._listed, self._continue = self._listed, {}, ""
        self.phase, self.synced, self.absent = Phase.WATCHING, True, False
        self.resource_version, self.trouble = page.resource_version, ""
        return self._replace(listed)

    def event(self, event: Event) -> list[Change]:
        """Take one line of the stream; an ERROR line counts as a failure and ends the stream."""
        assert self.phase is Phase.WATCHING, self
        match event.type:
            case "BOOKMARK":
                self.failures, self.trouble = 0, ""
                self._advance(_bare(event.object).resource_version)
                return []
            case "ERROR":
                self.failed(_read_status(event.object))
                return []
            case "ADDED" | "MODIFIED" | "DELETED":
                return self._observe(event)
            case other:
                self.failed(Trouble(f"unknown watch event {other!r}"))
                return []

    def ended(self, lasted: float) -> None:
        """The stream ended by itself after `lasted` seconds: resume from the last resource version."""
        assert self.phase is Phase.WATCHING, self
        if lasted >= 1.0:
            self.failures, self.trouble = 0, ""
        else:  # a server that ends every stream at once must not be asked in a hot loop
            self.failures += 1
            self._pause = self._backoff()

    def failed(self, failure: Failure) -> list[Change]:
        """Take a failure; a kind that went absent empties the store and returns its deletions."""
        match failure:
            case Expired():
                self._relist()
            case Absent():
                return self._try_next_version()
            case Throttled(retry_after):
                self.failures += 1
                self.trouble = "throttled by the API (429)"
                self._pause = min(max(retry_after, self._backoff()), RETRY_AFTER_MAX)
            case Trouble(reason):
                self.failures += 1
                self.trouble = reason
                self._pause = self._backoff()
        return []

    def _observe(self, event: Event) -> list[Change]:
        self.failures, self.trouble = 0, ""
        view = self._decode(event.object)
        bare = _bare(event.object)
        self._advance(bare.resource_version)
        key = (bare.namespace, bare.name)
        old = self.store.get(key)
        if event.type == "DELETED":
            self.unreadable.pop("/".join(key), None)
            if old is None:
                return []
            del self.store[key]
            return [Change(old, None)]
        if view is None:  # the last state that could be read stays in force
            return []
        self.store[key] = view
        return [] if old == view else [Change(old, view)]

    def _advance(self, resource_version: str) -> None:
        if resource_version:
            self.resource_version = resource_version

    def _relist(self) -> None:
        # A second 410 with no event in between (a token that expires at once) must not become a hot loop.
        self.failures += 1
        if self.failures > 1:
            self._pause = self._backoff()
        self.phase, self._continue, self._listed = Phase.LISTING, "", {}
        # "0" may be answered by a cache that is older than what we have seen; "" is the newest state.
        self._list_from = ""
        self.relists += 1

    def _try_next_version(self) -> list[Change]:
        self.phase, self._continue, self._listed = Phase.LISTING, "", {}
        self._version_index = (self._version_index + 1) % len(self.kind.versions)
        if self._version_index:
            return []
        if not self.kind.custom:
            self.failures += 1
            self.trouble = f"the API does not serve {self.kind}"
            self._pause = self._backoff()
            return []
        self.absent, self.synced, self.trouble = True, True, ""
        self._pause = ABSENT_RETRY * (0.5 + self.random())
        return self._replace({})

    def _replace(self, listed: dict[Key, View]) -> list[Change]:
        changes = [Change(self.store[key], None) for key in self.store.keys() - listed.keys()]
        for key, view in listed.items():
            old = self.store.get(key)
            if old != view:
                changes.append(Change(old, view))
        self.store.clear()
        self.store.update(listed)
        return changes

    def _decode(self, raw: msgspec.Raw) -> View | None:
        try:
            view: View = decode_view(raw, self.kind.view)
        except (msgspec.ValidationError, RecursionError) as error:
            self.unreadable["/".join(_key(raw))] = str(error)
            return None
        if self.unreadable:
            self.unreadable.pop(f"{view.namespace}/{view.name}", None)
        return view

    def _backoff(self) -> float:
        ceiling = min(BACKOFF_MAX, BACKOFF_FIRST * 2.0 ** min(self.failures, 16))
        return max(0.01, self.random() * ceiling)


def unreadable_names(reflectors: Iterable[Reflector]) -> list[str]:
    """Name the objects that could not be read, with the reason, for logs and `/ready`."""
    return [
        f"{reflector.kind} {name}: {reason}"
        for reflector in reflectors
        for name, reason in sorted(reflector.unreadable.items())
    ]


def _read_status(raw: msgspec.Raw) -> Failure:
    status = msgspec.json.decode(raw, type=_Status)
    if status.code == 410 or status.reason in ("Expired", "Gone"):
        return Expired()
    if status.code == 429 or status.reason == "TooManyRequests":
        return Throttled(1.0)
    return Trouble(status.message or status.reason or "the API sent an error in the watch stream")


def _bare(raw: msgspec.Raw) -> _BareMetadata:
    return msgspec.json.decode(raw, type=_Bare).metadata


def _key(raw: msgspec.Raw) -> Key:
    bare = _bare(raw)
    return (bare.namespace, bare.name)
