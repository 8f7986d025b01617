"""Checks and how they read: a category of lines, each √, ‼ or ×, with a reason and a hint where it is not √.

The text and the JSON are those of `linkerd check`, so that scripts that read one read the other.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Category", "Check", "as_json", "as_text", "failed", "passed", "succeeded", "warned"]

Outcome = Literal["success", "warning", "error"]
SIGNS: dict[Outcome, str] = {"success": "√", "warning": "‼", "error": "×"}


@dataclass(frozen=True)
class Check:
    """One line. `reason` and `hint` (what to do next) are empty when all is well."""

    description: str
    outcome: Outcome = "success"
    reason: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Category:
    """Checks that belong together."""

    name: str
    checks: Sequence[Check]


def passed(description: str) -> Check:
    """Return a check that found all well."""
    return Check(description)


def warned(description: str, reason: str, hint: str) -> Check:
    """Return a check that found what will matter, but works."""
    return Check(description, "warning", reason, hint)


def failed(description: str, reason: str, hint: str) -> Check:
    """Return a check that found what does not work."""
    return Check(description, "error", reason, hint)


def succeeded(categories: Iterable[Category]) -> bool:
    """Tell whether nothing failed; warnings do not count."""
    return all(check.outcome != "error" for category in categories for check in category.checks)


def as_text(categories: Sequence[Category]) -> str:
    """Write categories for a person, with the verdict in the last line."""
    lines: list[str] = []
    for category in categories:
        lines += [category.name, "-" * len(category.name)]
        for check in category.checks:
            lines.append(f"{SIGNS[check.outcome]} {check.description}")
            lines += [f"    {text}" for text in check.reason.splitlines()]
            lines += [f"    hint: {check.hint}"] if check.hint else []
        lines.append("")
    lines.append(f"Status check results are {SIGNS['success' if succeeded(categories) else 'error']}")
    return "\n".join(lines)


def as_json(categories: Sequence[Category]) -> dict[str, Any]:
    """Write categories for a program."""
    return {
        "success": succeeded(categories),
        "categories": [
            {
                "categoryName": category.name,
                "checks": [
                    {"description": check.description, "result": check.outcome}
                    | ({"error": check.reason} if check.reason else {})
                    | ({"hint": check.hint} if check.hint else {})
                    for check in category.checks
                ],
            }
            for category in categories
        ],
    }
