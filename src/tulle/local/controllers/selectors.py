"""Label selectors, as objects carry them. Pure."""

from collections.abc import Mapping

from tulle.local.controllers.cluster import Obj

__all__ = ["expression_holds", "matches", "matches_labels"]


def matches_labels(wanted: Mapping[str, str] | None, labels: Mapping[str, str]) -> bool:
    """Tell whether every wanted label is there. An empty or absent selector matches nothing (a Service's rule)."""
    return bool(wanted) and all(labels.get(name) == value for name, value in (wanted or {}).items())


def matches(selector: Obj | None, labels: Mapping[str, str]) -> bool:
    """Tell whether a LabelSelector (matchLabels, matchExpressions) holds. None matches nothing, {} everything.

    Raises ValueError for an operator that Kubernetes does not know.
    """
    if selector is None:
        return False
    if not all(labels.get(name) == value for name, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(expression_holds(expression, labels) for expression in selector.get("matchExpressions") or ())


def expression_holds(expression: Obj, labels: Mapping[str, str]) -> bool:
    """Tell whether one requirement (key, operator, values) holds.

    Raises ValueError for an operator that Kubernetes does not know.
    """
    value, values = labels.get(expression["key"]), expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case operator:
            raise ValueError(f"label selector operator {operator!r} (use In, NotIn, Exists or DoesNotExist)")
