"""Rules of Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs and CronJobs. Pure."""

import re
from collections.abc import Iterator
from typing import Any

from tulle.local.api.errors import ApiError, Cause
from tulle.local.api.objects import Obj, lookup
from tulle.local.api.selectors import matches_labels, selector_of
from tulle.local.api.validation.names import check_labels
from tulle.local.api.validation.pods import check_template

__all__ = ["check_cron_job", "check_deployment", "check_job", "check_replicas", "check_selected_template"]


def check_selected_template(obj: Obj, old: Obj | None) -> Iterator[Cause]:
    """Yield what is wrong with a selector, a pod template, and the way they fit."""
    spec = obj["spec"]
    template = spec.get("template") or {}
    yield from check_template(template, "spec.template")
    policy = lookup(template, ("spec", "restartPolicy"))
    if policy not in (None, "Always"):
        yield Cause.unsupported("spec.template.spec.restartPolicy", policy, ["Always"])
    yield from check_labels(lookup(template, ("metadata", "labels")), "spec.template.metadata.labels")
    selector = spec.get("selector") or {}
    yield from check_labels(selector.get("matchLabels"), "spec.selector.matchLabels")
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        yield Cause.invalid("spec.selector", "{}", "empty selector is invalid for " + _noun(obj))
        return
    try:
        terms = selector_of(selector)
    except ApiError as error:
        yield Cause.invalid("spec.selector", "", error.message)
        return
    labels = lookup(template, ("metadata", "labels"))
    if not matches_labels(terms, labels):
        shown = "{" + ", ".join(f'"{key}":"{value}"' for key, value in sorted((labels or {}).items())) + "}"
        yield Cause(
            "spec.template.metadata.labels",
            "FieldValueInvalid",
            f"Invalid value: {shown}: `selector` does not match template `labels`",
        )
    if old is not None and old["spec"].get("selector") != spec.get("selector"):
        yield Cause.invalid("spec.selector", _shown(spec.get("selector")), "field is immutable")


def _noun(obj: Obj) -> str:
    return {"Deployment": "deployment", "ReplicaSet": "replicaset"}.get(str(obj.get("kind")), "the workload")


def _shown(selector: Any) -> str:
    return str(selector).replace("'", '"')


def check_replicas(obj: Obj, old: Obj | None) -> Iterator[Cause]:
    """Yield what is wrong with a selected template and its replica count."""
    yield from check_selected_template(obj, old)
    replicas = obj["spec"].get("replicas")
    if isinstance(replicas, int) and replicas < 0:
        yield Cause.invalid("spec.replicas", replicas, "must be greater than or equal to 0")


def check_deployment(obj: Obj, old: Obj | None) -> Iterator[Cause]:
    """Yield what is wrong with a Deployment."""
    yield from check_replicas(obj, old)
    strategy = obj["spec"].get("strategy") or {}
    kind = strategy.get("type")
    if kind not in ("Recreate", "RollingUpdate"):
        yield Cause.unsupported("spec.strategy.type", kind, ["Recreate", "RollingUpdate"])
    elif kind == "Recreate" and strategy.get("rollingUpdate") is not None:
        detail = "may not be specified when strategy `type` is 'Recreate'"
        yield Cause.forbidden("spec.strategy.rollingUpdate", detail)
    elif kind == "RollingUpdate":
        rolling = strategy.get("rollingUpdate") or {}
        for field in ("maxUnavailable", "maxSurge"):
            yield from _check_share(rolling.get(field), f"spec.strategy.rollingUpdate.{field}")
        if _is_zero(rolling.get("maxUnavailable")) and _is_zero(rolling.get("maxSurge")):
            detail = "may not be 0 when `maxSurge` is 0"
            yield Cause.invalid(
                "spec.strategy.rollingUpdate.maxUnavailable", rolling.get("maxUnavailable"), detail
            )
    deadline, ready = obj["spec"].get("progressDeadlineSeconds"), obj["spec"].get("minReadySeconds") or 0
    if deadline is not None and deadline <= ready:
        yield Cause.invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds")


def _check_share(value: Any, path: str) -> Iterator[Cause]:
    if isinstance(value, str) and not re.fullmatch(r"\d+%", value):
        yield Cause.invalid(
            path, value, "a valid percent string must be a numeric string followed by an ending '%'"
        )
    elif isinstance(value, int) and value < 0:
        yield Cause.invalid(path, value, "must be greater than or equal to 0")


def _is_zero(value: Any) -> bool:
    return value in (0, "0%")


def check_job(obj: Obj, old: Obj | None) -> Iterator[Cause]:
    """Yield what is wrong with a Job."""
    yield from _check_job_spec(obj["spec"], "spec")
    if old is None:
        return
    for field in ("completions", "selector", "completionMode"):
        if (
            old["spec"].get(field) != obj["spec"].get(field)
            and obj["spec"].get("completionMode") != "Indexed"
        ):
            yield Cause.invalid(f"spec.{field}", _shown(obj["spec"].get(field)), "field is immutable")
    if old["spec"].get("template") != obj["spec"].get("template") and not old["spec"].get("suspend"):
        yield Cause.invalid("spec.template", "", "field is immutable")


def _check_job_spec(spec: Obj, path: str) -> Iterator[Cause]:
    for field in (
        "parallelism",
        "completions",
        "backoffLimit",
        "activeDeadlineSeconds",
        "ttlSecondsAfterFinished",
    ):
        value = spec.get(field)
        if isinstance(value, int) and value < 0:
            yield Cause.invalid(f"{path}.{field}", value, "must be greater than or equal to 0")
    yield from check_template(spec.get("template"), f"{path}.template")
    policy = lookup(spec, ("template", "spec", "restartPolicy"))
    if policy not in ("OnFailure", "Never"):
        yield Cause.unsupported(f"{path}.template.spec.restartPolicy", policy, ["OnFailure", "Never"])


def check_cron_job(obj: Obj, old: Obj | None) -> Iterator[Cause]:
    """Yield what is wrong with a CronJob."""
    spec = obj["spec"]
    schedule = spec.get("schedule") or ""
    if not schedule.startswith("@") and len(schedule.split()) != 5:
        yield Cause.invalid(
            "spec.schedule", schedule, f"expected exactly 5 fields, found {len(schedule.split())}"
        )
    policies = ["Allow", "Forbid", "Replace"]
    if spec.get("concurrencyPolicy") not in policies:
        yield Cause.unsupported("spec.concurrencyPolicy", spec.get("concurrencyPolicy"), policies)
    job = lookup(spec, ("jobTemplate", "spec"))
    if isinstance(job, dict):
        yield from _check_job_spec(job, "spec.jobTemplate.spec")
