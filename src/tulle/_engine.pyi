"""The proxies' engine (crates/engine-py). Verdicts are JSON; tulle.tools.verdict gives them types."""

def decide_outbound(
    policy: bytes,
    *,
    method: str,
    authority: str,
    path: str,
    headers: list[tuple[str, bytes]],
    http2: bool = False,
) -> str:
    """Say what a serialized OutboundPolicy makes of a request; raises ValueError when the bytes are no message."""

def decide_inbound(
    server: bytes,
    *,
    client: str,
    identity: str | None,
    tls: bool,
    method: str,
    authority: str,
    path: str,
    headers: list[tuple[str, bytes]],
) -> str:
    """Say what a serialized inbound Server makes of a request; raises ValueError as above or for a bad address."""

def endpoints(updates: list[bytes]) -> str:
    """Say which endpoints a stream of serialized Updates has told."""

def pattern_problem(text: str) -> str | None:
    """Say why a proxy would not take a regular expression; None when it would."""

def reasons() -> str:
    """List every reason for which a proxy answers by itself."""
