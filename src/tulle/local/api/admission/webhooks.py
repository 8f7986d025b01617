"""Calls admission webhooks over HTTPS, as a cluster does, and carries out what they answer."""

import asyncio
import base64
import binascii
import logging
import ssl
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeAlias
from urllib.parse import urlsplit

import h11
import msgspec

from tulle.local.api.admission.matching import Webhook, matching_webhooks
from tulle.local.api.admission.reviews import BadAnswer, Verdict, read_answer, review_for
from tulle.local.api.errors import ApiError, bad_request
from tulle.local.api.objects import Obj, lookup
from tulle.local.api.outgoing import ServiceUnreachable, exchange, service_endpoint
from tulle.local.api.patch import json_patch
from tulle.local.api.store import Store
from tulle.local.api.targets import AdmissionRequest

__all__ = ["Webhooks"]

log = logging.getLogger(__name__)

MAX_ANSWER = 8 * 1024 * 1024
"""Bytes of a webhook's answer."""
MAX_CONTEXTS = 32
"""TLS contexts kept, one per CA bundle."""

_GROUP = "admissionregistration.k8s.io"
Dial: TypeAlias = Callable[[str, int], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class CallFailed(Exception):
    """A webhook could not be asked, or its answer made no sense."""


class Webhooks:
    """The admission step that asks webhooks."""

    def __init__(self, store: Store, dial: Dial) -> None:
        self._store, self._dial = store, dial
        self._contexts: OrderedDict[str, ssl.SSLContext] = OrderedDict()

    def _matching(self, kind: str, request: AdmissionRequest) -> list[Webhook]:
        records = self._store.collection(f"{kind}webhookconfigurations.{_GROUP}").records
        if not records:
            return []
        namespace = self._store.get("namespaces", None, request.target.namespace or "")
        configurations = [record.obj for record in records.values()]
        return list(matching_webhooks(configurations, request, namespace.obj if namespace else None))

    async def mutate(self, request: AdmissionRequest) -> Obj:
        """Let mutating webhooks change the object, one after the other.

        One that asks for it (reinvocationPolicy IfNeeded) is called once more when a later one changed the object.
        """
        assert request.obj is not None
        obj = request.obj
        webhooks = self._matching("mutating", request)
        seen: list[tuple[Webhook, Obj]] = []
        for webhook in webhooks:
            obj = await self._mutate_by(webhook, replace(request, obj=obj))
            seen.append((webhook, obj))
        for webhook, left in seen:
            if webhook.spec.get("reinvocationPolicy") == "IfNeeded" and left != obj:
                obj = await self._mutate_by(webhook, replace(request, obj=obj))
        return obj

    async def _mutate_by(self, webhook: Webhook, request: AdmissionRequest) -> Obj:
        assert request.obj is not None
        verdict = await self._ask(webhook, request)
        if verdict is None or not verdict.patch:
            return request.obj
        try:
            return json_patch(request.obj, verdict.patch)
        except ApiError as error:
            message = f'Internal error occurred: patch of admission webhook "{webhook.name}": {error.message}'
            raise ApiError(500, "InternalError", message) from error

    async def validate(self, request: AdmissionRequest) -> None:
        """Let validating webhooks refuse, all at once; for a delete, mutating ones are asked first, in order."""
        if request.operation == "DELETE":
            for webhook in self._matching("mutating", request):
                await self._ask(webhook, request)
        webhooks = self._matching("validating", request)
        if webhooks:
            answers = await asyncio.gather(
                *(self._ask(webhook, request) for webhook in webhooks), return_exceptions=True
            )
            for answer in answers:
                if isinstance(answer, BaseException):
                    raise answer

    async def _ask(self, webhook: Webhook, request: AdmissionRequest) -> Verdict | None:
        """Return the verdict; None when the webhook cannot be asked and may be left out. Raises its denial."""
        effects = webhook.spec.get("sideEffects")
        if request.options.dry_run and effects not in ("None", "NoneOnDryRun"):
            raise bad_request(f'admission webhook "{webhook.name}" does not support dry run')
        uid = str(uuid.uuid4())
        body = msgspec.json.encode(review_for(webhook, request, uid))
        seconds = webhook.spec.get("timeoutSeconds") or 10
        try:
            async with asyncio.timeout(seconds):
                verdict = read_answer(webhook, uid, await self._call(webhook, body, seconds))
        except (CallFailed, BadAnswer, OSError, TimeoutError, h11.ProtocolError) as error:
            why = str(error) or (
                f"no answer within {seconds} s" if isinstance(error, TimeoutError) else repr(error)
            )
            message = (
                f'failed calling webhook "{webhook.name}": failed to call webhook: {_url(webhook)}: {why}'
            )
            if webhook.fails_closed:
                raise ApiError(500, "InternalError", f"Internal error occurred: {message}") from error
            log.warning("%s (failurePolicy Ignore: the request goes on)", message)
            return None
        request.options.warnings.extend(verdict.warnings)
        if verdict.denial is not None:
            raise verdict.denial
        return verdict

    async def _call(self, webhook: Webhook, body: bytes, seconds: int) -> bytes:
        config = webhook.spec["clientConfig"]
        context = self._context(config.get("caBundle") or "")
        service = config.get("service")
        if service:
            name, namespace = service["name"], service["namespace"]
            try:
                place = service_endpoint(self._store, namespace, name, str(service.get("port") or 443))
            except ServiceUnreachable as error:
                raise CallFailed(str(error)) from error
            host, port, path = (
                f"{name}.{namespace}.svc",
                service.get("port") or 443,
                service.get("path") or "/",
            )
            reader, writer = await self._dial(place.address, place.port)
        else:
            url = urlsplit(config["url"])
            host, port, path = url.hostname or "", url.port or 443, url.path or "/"
            reader, writer = await asyncio.open_connection(host, port)
        try:
            await writer.start_tls(context, server_hostname=host)
            target = f"{path}?timeout={seconds}s"
            headers = [
                (b"host", f"{host}:{port}".encode()),
                (b"content-type", b"application/json"),
                (b"accept", b"application/json"),
                (b"user-agent", b"kube-apiserver-admission"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
            ]
            answer = await exchange(reader, writer, "POST", target, headers, body)
            data = bytearray()
            async for chunk in answer.body:
                data += chunk
                if len(data) > MAX_ANSWER:
                    raise CallFailed(f"its answer is longer than {MAX_ANSWER} bytes")
            if answer.status != 200:
                text = bytes(data[:200]).decode(errors="replace").strip()
                raise CallFailed(f"the server answered {answer.status}: {text}")
            return bytes(data)
        finally:
            writer.close()

    def _context(self, bundle: str) -> ssl.SSLContext:
        context = self._contexts.get(bundle)
        if context is None:
            try:
                roots = base64.b64decode(bundle, validate=True).decode() if bundle else None
                context = ssl.create_default_context(cadata=roots)
            except (ssl.SSLError, binascii.Error, UnicodeDecodeError, ValueError) as error:
                raise CallFailed(f"unable to load root certificates: {error}") from error
            self._contexts[bundle] = context
            while len(self._contexts) > MAX_CONTEXTS:
                self._contexts.popitem(last=False)
        return context


def _url(webhook: Webhook) -> str:
    service = lookup(webhook.spec, ("clientConfig", "service"))
    if service:
        host = f"{service['name']}.{service['namespace']}.svc:{service.get('port') or 443}"
        url = f"https://{host}{service.get('path') or '/'}"
    else:
        url = str(webhook.spec["clientConfig"].get("url"))
    return f'Post "{url}?timeout={webhook.spec.get("timeoutSeconds") or 10}s"'
