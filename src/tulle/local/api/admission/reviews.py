"""The conversation with a webhook: the AdmissionReview that is sent, what its answer means. Pure."""

import base64
import binascii
from dataclasses import dataclass
from typing import Any

import msgspec

from tulle.local.api import decoding
from tulle.local.api.admission.matching import Webhook
from tulle.local.api.errors import ApiError
from tulle.local.api.objects import Obj
from tulle.local.api.targets import AdmissionRequest

__all__ = ["BadAnswer", "Verdict", "read_answer", "review_for"]

_OPTIONS = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}


class BadAnswer(Exception):
    """A webhook answered something that is no AdmissionReview for the request; the text says what."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a webhook decided. `denial` None: allowed."""

    denial: ApiError | None
    patch: list[Obj]
    warnings: tuple[str, ...] = ()


def review_for(webhook: Webhook, request: AdmissionRequest, uid: str) -> Obj:
    """Return the AdmissionReview to send."""
    target = request.target
    resource = target.resource
    asked = target.version or resource.version
    subject = request.obj or request.old or {}
    metadata = subject.get("metadata") or {}

    def seen(obj: Obj | None) -> Obj | None:
        return None if obj is None else decoding.in_version(resource, obj, webhook.version)

    kind = resource.kind if request.operation != "CONNECT" else str(subject.get("kind"))
    review: Obj = {
        "uid": uid,
        "kind": {"group": resource.group, "version": webhook.version, "kind": kind},
        "resource": {"group": resource.group, "version": webhook.version, "resource": resource.plural},
        "requestKind": {"group": resource.group, "version": asked, "kind": kind},
        "requestResource": {"group": resource.group, "version": asked, "resource": resource.plural},
        "operation": request.operation,
        "userInfo": request.options.user.info(),
        "object": seen(request.obj),
        "oldObject": seen(request.old),
        "dryRun": request.options.dry_run,
    }
    if request.operation != "CONNECT":
        options: Obj = {"kind": _OPTIONS[request.operation], "apiVersion": "meta.k8s.io/v1"}
        if request.operation in ("CREATE", "UPDATE"):
            options["fieldManager"] = request.options.field_manager
        review["options"] = options
    name = metadata.get("name") or target.name
    if name:
        review["name"] = name
    if target.namespace:
        review["namespace"] = target.namespace
    elif resource.key == "namespaces" and name:
        review["namespace"] = name
    if target.subresource:
        review["subResource"] = review["requestSubResource"] = target.subresource
    return {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": review}


def read_answer(webhook: Webhook, uid: str, data: bytes) -> Verdict:
    """Read a webhook's answer; raise BadAnswer."""
    try:
        review = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadAnswer(f"its answer is no JSON object: {error}") from error
    response = review.get("response")
    if review.get("apiVersion") != "admission.k8s.io/v1" or review.get("kind") != "AdmissionReview":
        raise BadAnswer(
            f"expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, "
            f"got {review.get('apiVersion')}, Kind={review.get('kind')}"
        )
    if not isinstance(response, dict):
        raise BadAnswer("webhook response was absent")
    if response.get("uid") != uid:
        raise BadAnswer(f'expected response.uid="{uid}", got "{response.get("uid")}"')
    warnings = tuple(str(text)[:256] for text in (response.get("warnings") or ())[:20])
    if response.get("allowed") is not True:
        return Verdict(_denial(webhook, response.get("status") or {}), [], warnings)
    return Verdict(None, _patch(response), warnings)


def _patch(response: Obj) -> list[Obj]:
    encoded = response.get("patch")
    if not encoded:
        return []
    if response.get("patchType") != "JSONPatch":
        raise BadAnswer(f"unknown patchType {response.get('patchType')!r}: webhooks answer with JSONPatch")
    try:
        patch: list[Obj] = msgspec.json.decode(
            base64.b64decode(encoded, validate=True), type=list[dict[str, Any]]
        )
    except (ValueError, binascii.Error, msgspec.DecodeError) as error:
        raise BadAnswer(f"its patch is no JSON patch: {error}") from error
    return patch


def _denial(webhook: Webhook, status: Obj) -> ApiError:
    text = f'admission webhook "{webhook.name}" denied the request'
    detail = status.get("message") or status.get("reason")
    message = f"{text}: {detail}" if detail else f"{text} without explanation"
    code = status.get("code")
    code = code if isinstance(code, int) and 400 <= code < 600 else 400
    details = status.get("details")
    return ApiError(
        code, str(status.get("reason") or ""), message, details if isinstance(details, dict) else None
    )
