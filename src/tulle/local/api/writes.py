"""The one way in which objects change: decode, admit, default, check, store.

Create, update, patch and delete all pass here, whoever asks and through whichever door. The steps that decide are pure
(lifecycle, defaults, validation, apply); only admission webhooks wait for somebody, and a write that was overtaken
meanwhile starts again or ends in 409, as its caller asked.
"""

import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tulle.clock import Clock
from tulle.local.api import apply, crds, decoding, defaults, lifecycle, services, structural, validation
from tulle.local.api.bootstrap import Seed
from tulle.local.api.commits import Committer
from tulle.local.api.errors import (
    ApiError,
    already_exists,
    bad_request,
    conflict,
    forbidden,
    invalid,
    not_found,
)
from tulle.local.api.lifecycle import Propagation
from tulle.local.api.objects import Obj, copy_json, lookup, meta, name_of, namespace_of
from tulle.local.api.patch import PatchKind, json_patch, merge_patch, strategic_merge
from tulle.local.api.registry import Registry, ResourceType
from tulle.local.api.selectors import matches_labels, selector_of
from tulle.local.api.store import Record, Store
from tulle.local.api.targets import Admission, AdmissionRequest, Target, WriteOptions

__all__ = ["Writer"]

RETRIES = 8
"""Times that an unconditional write starts again when another one came first, and names tried for generateName."""


class Writer:
    """Carries out writes on the store."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        clock: Clock,
        admission: Admission,
        allocator: services.Allocator,
        namespace_seeds: Callable[[str], Iterable[Seed]],
    ) -> None:
        self._store, self._registry, self._clock = store, registry, clock
        self._admission, self._allocator = admission, allocator
        self._namespace_seeds = namespace_seeds
        self._commits = Committer(store, registry, clock)

    def current(self, target: Target) -> Obj:
        """Return the target as stored, for reading; raise 404."""
        record = self._store.get(target.resource.key, target.namespace, target.name)
        if record is None:
            raise target.missing()
        return record.obj

    def budgets_of(self, pod: Obj) -> Iterator[tuple[Obj, list[Obj]]]:
        """Yield the PodDisruptionBudgets that select a pod, each with all the pods that it selects."""
        namespace = pod["metadata"]["namespace"]
        pods = [
            record.obj
            for (where, _), record in self._store.collection("pods").records.items()
            if where == namespace
        ]
        for (where, _), record in self._store.collection("poddisruptionbudgets.policy").records.items():
            terms = selector_of((record.obj.get("spec") or {}).get("selector"))
            if where == namespace and matches_labels(terms, pod["metadata"].get("labels")):
                yield record.obj, [p for p in pods if matches_labels(terms, p["metadata"].get("labels"))]

    async def admit_connection(self, target: Target, asked: Obj, options: WriteOptions) -> None:
        """Ask admission about a connection to a pod or Service (a command, a forwarded port, a proxied request).

        `asked`: the options object of the subresource, such as PodExecOptions.
        """
        request = AdmissionRequest("CONNECT", target, asked, None, options)
        await self._admission.mutate(request)
        await self._admission.validate(request)

    # --- create -------------------------------------------------------------------------------------------------

    async def create(self, target: Target, sent: Obj, options: WriteOptions) -> Obj:
        """Create an object and return it as stored."""
        obj = decoding.decode(target, sent, options)
        self._check_namespace(target)
        if not name_of(obj) and not meta(obj).get("generateName"):
            raise (
                bad_request("name or generateName is required")
                if target.resource.is_custom
                else invalid(
                    target.resource.kind,
                    target.resource.group,
                    "",
                    [validation.Cause.required("metadata.name", "name or generateName is required")],
                )
            )
        return await self._create(target, obj, options, None)

    async def _create(self, target: Target, obj: Obj, options: WriteOptions, applied: Obj | None) -> Obj:
        resource = target.resource
        now = self._clock.now()
        lifecycle.prepare_create(resource, obj, target.version)
        self._default(resource, target.version, obj)
        obj = await self._admission.mutate(AdmissionRequest("CREATE", target, obj, None, options))
        self._default(resource, target.version, obj)
        generated = not name_of(obj)
        for _ in range(RETRIES if generated else 1):
            if generated:
                obj["metadata"]["name"] = obj["metadata"]["generateName"] + lifecycle.random_suffix()
            if self._store.get(resource.key, target.namespace, name_of(obj)) is None:
                break
        else:
            raise already_exists(resource.plural, resource.group, name_of(obj))
        lifecycle.finish_create(resource, obj, now, str(uuid.uuid4()))
        self._default(resource, target.version, obj)
        validation.check(resource, obj, None, target.version)
        self._settle(resource, obj, None, options)
        await self._admission.validate(AdmissionRequest("CREATE", target, obj, None, options))
        if applied is None:
            schema = resource.schema_of(target.version)
            apply.track_update(
                schema,
                None,
                obj,
                manager=options.field_manager,
                api_version=target.api_version,
                time=lifecycle.timestamp(now),
            )
        stored = _stored_form(resource, obj)
        if self._store.get(resource.key, target.namespace, name_of(obj)) is not None:
            raise already_exists(resource.plural, resource.group, name_of(obj))
        self._check_namespace(target)
        if options.dry_run:
            return stored
        created = self._commits.put(target, stored).obj
        if resource.key == "namespaces":
            await self.ensure(self._namespace_seeds(name_of(created)))
        return created

    async def ensure(self, seeds: Iterable[Seed]) -> None:
        """Create the objects that do not exist yet."""
        for seed in seeds:
            target = Target(self._registry.find(seed.group, seed.plural), namespace_of(seed.obj))
            try:
                await self.create(target, seed.obj, WriteOptions())
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise

    def _check_namespace(self, target: Target) -> None:
        if not target.resource.namespaced:
            return
        record = self._store.get("namespaces", None, target.namespace or "")
        if record is None:
            raise not_found("namespaces", "", target.namespace or "")
        if "deletionTimestamp" in record.obj["metadata"]:
            why = (
                f"unable to create new content in namespace {target.namespace} because it is being terminated"
            )
            error = forbidden(target.resource.plural, target.resource.group, target.name, why)
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {target.namespace} is being terminated",
            }
            error.details["causes"] = [cause | {"field": "metadata.namespace"}]
            raise error

    # --- update and patch ---------------------------------------------------------------------------------------

    async def update(self, target: Target, sent: Obj, options: WriteOptions) -> Obj:
        """Replace an object; its resourceVersion, when it carries one, must be the current one."""
        obj = decoding.decode(target, sent, options)

        def replacement(live: Obj) -> Obj:
            version = meta(obj).get("resourceVersion")
            if version and version != live["metadata"]["resourceVersion"]:
                raise conflict(target.resource.plural, target.resource.group, target.name)
            return obj

        conditional = bool(meta(obj).get("resourceVersion"))
        return await self._change(target, replacement, options, retry=not conditional)

    async def patch(
        self, target: Target, kind: PatchKind, body: Any, options: WriteOptions, *, force: bool = False
    ) -> Obj:
        """Change an object as a patch says; server-side apply creates it when it does not exist."""
        resource = target.resource
        schema = resource.schema_of(target.version)
        if kind == "apply":
            return await self._apply(target, body, options, force)
        if kind == "strategic" and resource.is_custom:
            message = "the body of the request was in an unknown format - accepted media types include: "
            raise ApiError(
                415,
                "UnsupportedMediaType",
                message
                + "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
            )
        if kind != "json" and not isinstance(body, dict):
            raise bad_request(f"a {kind} patch is an object")

        def patched(live: Obj) -> Obj:
            match kind:
                case "json":
                    changed = json_patch(live, body)
                case "merge":
                    changed = merge_patch(live, body)
                case _:
                    changed = strategic_merge(schema, live, body)
            decoded = decoding.decode(target, changed, options)
            version = decoded["metadata"].get("resourceVersion")
            if version and version != live["metadata"]["resourceVersion"]:
                raise conflict(resource.plural, resource.group, target.name)
            return decoded

        return await self._change(target, patched, options, retry=True)

    async def _apply(self, target: Target, sent: Any, options: WriteOptions, force: bool) -> Obj:
        if not isinstance(sent, dict):
            raise bad_request("an apply patch is an object")
        if lookup(sent, ("metadata", "managedFields")):
            raise bad_request("metadata.managedFields must be nil")
        config = decoding.decode(target, sent, options)
        schema = target.resource.schema_of(target.version)

        def applied(live: Obj | None) -> Obj:
            wanted = meta(config).get("resourceVersion")
            if live is not None and wanted and wanted != live["metadata"]["resourceVersion"]:
                raise conflict(target.resource.plural, target.resource.group, target.name)
            if live is not None and meta(config).get("uid") not in (None, live["metadata"]["uid"]):
                raise conflict(target.resource.plural, target.resource.group, target.name)
            return apply.apply_configuration(
                schema,
                live,
                config,
                manager=options.field_manager,
                api_version=target.api_version,
                time=lifecycle.timestamp(self._clock.now()),
                force=force,
                subresource=target.subresource or "",
            )

        if self._store.get(target.resource.key, target.namespace, target.name) is None:
            if target.subresource:
                raise target.missing()
            self._check_namespace(target)
            try:
                return await self._create(target, copy_json(applied(None)), options, config)
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise
        return await self._change(target, applied, options, retry=True, track=False)

    async def _change(
        self,
        target: Target,
        transform: Callable[[Obj], Obj],
        options: WriteOptions,
        *,
        retry: bool,
        track: bool = True,
    ) -> Obj:
        for _ in range(RETRIES):
            record = self._store.get(target.resource.key, target.namespace, target.name)
            if record is None:
                raise target.missing()
            live = _request_form(target, record.obj)
            done = await self._try_change(target, record, live, transform(live), options, track)
            if done is not None:
                return done
            if not retry:
                break
        raise conflict(target.resource.plural, target.resource.group, target.name)

    async def _try_change(
        self, target: Target, record: Record, live: Obj, wanted: Obj, options: WriteOptions, track: bool
    ) -> Obj | None:
        """Carry out one attempt; None: another write came first."""
        resource = target.resource
        new: Obj = copy_json(
            lifecycle.prepare_update(resource, live, wanted, target.subresource, target.version)
        )
        services.keep(resource, live, new)
        self._default(resource, target.version, new)
        new = await self._admission.mutate(AdmissionRequest("UPDATE", target, new, live, options))
        self._default(resource, target.version, new)
        validation.check(resource, new, live, target.version, target.subresource)
        self._settle(resource, new, live, options, target.subresource)
        await self._admission.validate(AdmissionRequest("UPDATE", target, new, live, options))
        if track:
            apply.track_update(
                resource.schema_of(target.version),
                live,
                new,
                manager=options.field_manager,
                api_version=target.api_version,
                time=lifecycle.timestamp(self._clock.now()),
                subresource=target.subresource or "",
            )
        if self._store.get(resource.key, target.namespace, target.name) is not record:
            return None
        if _same(live, new):
            return record.obj
        stored = _stored_form(resource, new)
        if options.dry_run:
            return stored
        if lifecycle.is_released(stored):
            return self._commits.remove(target, record.obj, stored).obj
        return self._commits.put(target, stored).obj

    # --- delete -------------------------------------------------------------------------------------------------

    async def delete(
        self,
        target: Target,
        options: WriteOptions,
        *,
        grace: int | None = None,
        propagation: Propagation = "Background",
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> tuple[Obj, bool]:
        """Delete an object; return its last form and whether it is gone already."""
        resource = target.resource
        for _ in range(RETRIES):
            record = self._store.get(resource.key, target.namespace, target.name)
            if record is None:
                raise target.missing()
            self._check_preconditions(target, record.obj, uid, resource_version)
            live = _request_form(target, record.obj)
            await self._admission.validate(AdmissionRequest("DELETE", target, None, live, options))
            if self._store.get(resource.key, target.namespace, target.name) is not record:
                continue
            decided = lifecycle.begin_deletion(
                resource, record.obj, self._clock.now(), grace=grace, propagation=propagation
            )
            if options.dry_run:
                return decided.obj, decided.gone
            if decided.gone:
                return self._commits.remove(target, record.obj, decided.obj).obj, True
            left = self._commits.put(target, decided.obj).obj if decided.changed else record.obj
            if resource.key == crds.KEY:
                await self._delete_instances(left, options)
                still = self._store.get(resource.key, None, target.name)
                return left, still is None
            return left, False
        raise conflict(resource.plural, resource.group, target.name)

    def _check_preconditions(self, target: Target, live: Obj, uid: str | None, version: str | None) -> None:
        for wanted, found, label in (
            (uid, live["metadata"]["uid"], "UID"),
            (version, live["metadata"]["resourceVersion"], "ResourceVersion"),
        ):
            if wanted is not None and wanted != found:
                why = (
                    f"Precondition failed: {label} in precondition: {wanted}, {label} in object meta: {found}"
                )
                raise conflict(target.resource.plural, target.resource.group, target.name, why)

    async def _delete_instances(self, definition: Obj, options: WriteOptions) -> None:
        """Delete every object of a definition that is being deleted; the last one to go takes it along."""
        resource = crds.resource_type(definition)
        for namespace, name in list(self._store.collection(resource.key).records):
            try:
                await self.delete(Target(resource, namespace or None, name), options)
            except ApiError as error:
                if error.code != 404:
                    raise
        self._commits.end_definition(resource)

    # --- the store ----------------------------------------------------------------------------------------------

    def _default(self, resource: ResourceType, version: str | None, obj: Obj) -> None:
        if resource.is_custom:
            structural.apply_defaults(resource.schema_of(version), obj)
        else:
            defaults.apply_defaults(resource, obj)

    def _settle(
        self,
        resource: ResourceType,
        obj: Obj,
        live: Obj | None,
        options: WriteOptions,
        subresource: str | None = None,
    ) -> None:
        """Give an object, in place, what only the API can: a Service's address, a definition's status."""
        if resource.key == "services" and subresource is None:
            services.prepare(self._allocator, resource, obj, live)
        elif resource.key == crds.KEY and subresource is None:
            options.warnings.extend(crds.warnings_for(obj))
            crds.settle(obj, self._registry, self._clock.now())


def _same(live: Obj, new: Obj) -> bool:
    """Tell whether a write changes nothing but, perhaps, the times of field managers."""
    if live == new:
        return True
    for key in live.keys() | new.keys():
        if key != "metadata" and live.get(key) != new.get(key):
            return False
    before, after = dict(live["metadata"]), dict(new["metadata"])
    owners = [_timeless(before.pop("managedFields", None)), _timeless(after.pop("managedFields", None))]
    return before == after and owners[0] == owners[1]


def _timeless(managed: list[Obj] | None) -> list[Obj]:
    return [{key: value for key, value in entry.items() if key != "time"} for entry in managed or ()]


def _request_form(target: Target, stored: Obj) -> Obj:
    """Return a stored object in the version that the client speaks."""
    return decoding.in_version(target.resource, stored, target.version)


def _stored_form(resource: ResourceType, obj: Obj) -> Obj:
    return decoding.to_storage(resource, obj)
