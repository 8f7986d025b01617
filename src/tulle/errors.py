"""Errors that a person reads: what happened, why, what to do next."""

__all__ = ["TulleError", "UsageError"]


class TulleError(Exception):
    """The check or the work failed; the command line prints the three parts and exits with `exit_code`."""

    exit_code = 1

    def __init__(self, what: str, why: str = "", next_step: str = "") -> None:
        super().__init__(what)
        self.what, self.why, self.next_step = what, why, next_step

    def __str__(self) -> str:
        return "\n  ".join(part for part in (self.what, self.why, self.next_step) if part)


class UsageError(TulleError):
    """The call itself was wrong: exit code 2."""

    exit_code = 2
