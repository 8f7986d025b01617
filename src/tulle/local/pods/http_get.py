"""One small HTTP GET for probes and hooks, over a connection that the network dialled."""

import asyncio
import contextlib
import ssl
from collections.abc import Mapping

__all__ = ["GOODBYE_SECONDS", "HttpError", "http_status"]

GOODBYE_SECONDS = 0.1
"""How long a probe waits for its connection to be closed. Not with wait_for: before Python 3.12 that loses the
cancellation of a probe whose container ends just then, and the probe would go on without it."""


class HttpError(Exception):
    """No answer that is HTTP came back."""


async def http_status(
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    *,
    host: str,
    path: str,
    headers: Mapping[str, str],
    tls: bool = False,
) -> int:
    """Send a GET and return the status code; closes the connection. With `tls` the certificate is not checked.

    Raises HttpError or OSError. The caller sets the deadline.
    """
    reader, writer = streams
    try:
        if tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            await writer.start_tls(context, server_hostname=host.partition(":")[0])
        fields = {"Host": host, "User-Agent": "kube-probe/tulle", "Accept": "*/*", "Connection": "close"}
        for name, value in headers.items():
            fields = {k: v for k, v in fields.items() if k.lower() != name.lower()} | {name: value}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
        await writer.drain()
        line = await reader.readline()
        parts = line.decode("latin-1").split()
        if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdigit():
            raise HttpError(
                f"the answer is not HTTP/1: {line[:60]!r}"
                if line
                else "the connection was closed without an answer"
            )
        return int(parts[1])
    except (ValueError, ssl.SSLError) as error:
        raise HttpError(str(error)) from error
    finally:
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await writer.wait_closed()
