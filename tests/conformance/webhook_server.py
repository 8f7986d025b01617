"""A real admission webhook over HTTPS, for tests: it keeps what it was asked and answers what it is told."""

import base64
import json
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tulle.clock import SystemClock
from tulle.local.api.auth.certificates import Authority

Answer = Callable[[dict[str, Any]], dict[str, Any]]


def allow(_request: dict[str, Any]) -> dict[str, Any]:
    return {"allowed": True}


def patch(*operations: dict[str, Any]) -> Answer:
    encoded = base64.b64encode(json.dumps(operations).encode()).decode()
    return lambda _request: {"allowed": True, "patchType": "JSONPatch", "patch": encoded}


def deny(message: str, **status: Any) -> Answer:
    return lambda _request: {"allowed": False, "status": {"message": message, **status}}


class WebhookServer:
    """Answers AdmissionReviews with `answer`, which tests set."""

    def __init__(self, names: list[str]) -> None:
        self.answer: Answer = allow
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        authority = Authority(SystemClock())
        self.ca_bundle = base64.b64encode(authority.bundle).decode()
        credential = authority.server(names)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pair.pem"
            path.write_bytes(credential.certificate + credential.key)
            context.load_cert_chain(path)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                review = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.requests.append(review["request"])
                outer.paths.append(self.path)
                answer = outer.answer(review["request"])
                body: dict[str, Any] = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
                body["response"] = {"uid": review["request"]["uid"], **answer}
                data = json.dumps(body).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]

    @contextmanager
    def serving(self) -> Iterator["WebhookServer"]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join(10)
