"""A container's last words: its termination message file, or the end of its log."""

from pathlib import Path

from tulle.local.pods.launch import Launch
from tulle.local.pods.logs import LogFile
from tulle.local.pods.spec import ContainerSpec

__all__ = ["DEFAULT_PATH", "MESSAGE_BYTES", "termination_message"]

DEFAULT_PATH = "/dev/termination-log"
MESSAGE_BYTES = 4096
LOG_BYTES = 2048
LOG_LINES = 80


def termination_message(container: ContainerSpec, launch: Launch, log: LogFile, *, failed: bool) -> str:
    """Return what the container wrote to its terminationMessagePath, or as its policy says the end of its log."""
    path = container.raw.get("terminationMessagePath") or DEFAULT_PATH
    source = next((mount.source for mount in launch.mounts if mount.target == path), None)
    if source is not None:
        with open(Path(source), "rb") as file:
            text = file.read(MESSAGE_BYTES).decode(errors="replace")
        if text:
            return text
    if failed and container.raw.get("terminationMessagePolicy") == "FallbackToLogsOnError":
        return log.tail(LOG_LINES, LOG_BYTES)
    return ""
