"""What every namespace has from the start, and how one goes: its contents first, then itself.

A namespace gets the ServiceAccount `default` and the ConfigMap `kube-root-ca.crt`. When it is deleted, everything in it
is deleted; the finalizer `kubernetes` comes off once nothing is left.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from tulle.local.controllers.actions import Action, Create, Patch
from tulle.local.controllers.cluster import (
    CONFIG_MAPS,
    NAMESPACES,
    SERVICE_ACCOUNTS,
    ApiError,
    ClusterApi,
    Key,
    Kind,
    Obj,
)
from tulle.local.controllers.manager import Controller
from tulle.local.controllers.metadata import is_deleting, name_of, namespace_of
from tulle.local.controllers.store import Stores

log = logging.getLogger(__name__)

__all__ = ["ROOT_CA", "controller", "empty_namespaces"]

ROOT_CA = "kube-root-ca.crt"
SWEEP_SECONDS = 0.2
"""Pause between two looks at a namespace that is being emptied (pods take their grace period)."""


def controller(ca_pem: str) -> Controller:
    """Return the controller that furnishes namespaces; `ca_pem` is the API's certificate authority."""

    def reconcile(key: Key, stores: Stores, now: datetime) -> Sequence[Action]:
        namespace = stores[NAMESPACES].get("", key[1])
        if namespace is None or is_deleting(namespace):
            return ()
        actions: list[Action] = []
        if stores[SERVICE_ACCOUNTS].get(key[1], "default") is None:
            actions.append(Create(SERVICE_ACCOUNTS, _named(SERVICE_ACCOUNTS, key[1], "default")))
        root = stores[CONFIG_MAPS].get(key[1], ROOT_CA)
        if root is None:
            actions.append(
                Create(CONFIG_MAPS, {**_named(CONFIG_MAPS, key[1], ROOT_CA), "data": {"ca.crt": ca_pem}})
            )
        elif (root.get("data") or {}) != {"ca.crt": ca_pem}:
            actions.append(Patch(CONFIG_MAPS, key[1], ROOT_CA, {"data": {"ca.crt": ca_pem}}))
        return actions

    return Controller(
        name="namespace",
        watches={
            NAMESPACES: lambda obj, _stores: (("", name_of(obj)),),
            SERVICE_ACCOUNTS: _namespace_if("default"),
            CONFIG_MAPS: _namespace_if(ROOT_CA),
        },
        reconcile=reconcile,
    )


def _namespace_if(name: str) -> Callable[[Obj, Stores], Iterable[Key]]:
    return lambda obj, _stores: (("", namespace_of(obj)),) if name_of(obj) == name else ()


def _named(kind: Kind, namespace: str, name: str) -> Obj:
    return {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "metadata": {"name": name, "namespace": namespace},
    }


async def empty_namespaces(
    api: ClusterApi, stores: Stores, kinds: Callable[[], Iterable[tuple[str, str]]]
) -> None:
    """Empty every namespace that is being deleted, until cancelled.

    `kinds` yields (group, plural) of every namespaced kind that the API serves now, custom ones included.
    """
    terminating: set[str] = set()
    wake = asyncio.Event()

    def changed(_old: Obj | None, new: Obj | None) -> None:
        if new is not None and is_deleting(new):
            terminating.add(name_of(new))
            wake.set()

    stores[NAMESPACES].listen(changed)
    while True:
        await wake.wait()
        for name in sorted(terminating):
            try:
                if await _empty(api, name, kinds()):
                    await _finalize(api, name)
                    terminating.discard(name)
            except ApiError as error:
                # A webhook may refuse a deletion for a while: the namespace waits, the others go.
                log.warning("namespace %s is not empty yet: %s", name, error.message)
        if terminating:
            await asyncio.sleep(SWEEP_SECONDS)
        else:
            wake.clear()


async def _empty(api: ClusterApi, namespace: str, kinds: Iterable[tuple[str, str]]) -> bool:
    """Ask for the deletion of what is left in a namespace; True when nothing was."""
    empty = True
    for group, plural in kinds:
        for obj in (await api.list(plural, group=group, namespace=namespace)).items:
            empty = False
            if not is_deleting(obj):
                try:
                    await api.delete(plural, name_of(obj), group=group, namespace=namespace)
                except ApiError as error:
                    if error.code not in (404, 405, 409):
                        raise
    return empty


async def _finalize(api: ClusterApi, namespace: str) -> None:
    try:
        await api.patch(NAMESPACES.plural, namespace, {"spec": {"finalizers": []}}, subresource="finalize")
    except ApiError as error:
        if error.code != 404:
            raise
