"""A small HTTP server that stands for the plane in tests of the command line.

It speaks the plane's one route of operations over a real socket, keeps what it was sent, byte for
byte, and answers what the test tells it to. It decides nothing: the plane itself is tested elsewhere.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from schemas.problem import Problem


@dataclass
class StandIn:
    """What was sent, and what is to be answered: operation → value, Problem, or a function of the input."""

    url: str = ""
    answers: dict[str, Any] = field(default_factory=dict)
    calls: list[tuple[str, bytes]] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    streams: list[list[dict[str, Any]]] = field(default_factory=list)
    followed: list[str] = field(default_factory=list)

    def inputs(self, operation: str) -> list[Any]:
        return [json.loads(body) for name, body in self.calls if name == operation]

    def answer(self, operation: str, body: bytes) -> tuple[int, Any]:
        found = self.answers.get(operation, {})
        if isinstance(found, Callable):  # type: ignore[arg-type]
            found = found(json.loads(body))
        if isinstance(found, Problem):
            return found.status, found.model_dump(mode="json")
        return 200, found


@contextmanager
def serving() -> Iterator[StandIn]:
    """A stand-in that listens on a free port of the loopback."""
    stand_in = StandIn()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(stand_in))
    stand_in.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(stand_in: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            operation = self.path.removeprefix("/v1/operations/").removesuffix("/call")
            body = self.rfile.read(int(self.headers["Content-Length"]))
            stand_in.calls.append((operation, body))
            stand_in.tokens.append(self.headers.get("Authorization"))
            self._answer(*stand_in.answer(operation, body))

        def _answer(self, status: int, value: Any) -> None:
            content = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json" if status == 200 else "application/problem+json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            """Feedback as server-sent events: one stored stream for each connection, then the end."""
            stand_in.followed.append(self.path)
            if not stand_in.streams:
                self._answer(*stand_in.answer("feedback.read", b"{}"))
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(b": hello\n\n")
            for event in stand_in.streams.pop(0):
                self.wfile.write(f"id: {event['cursor']}\nevent: x\ndata: {json.dumps(event)}\n\n".encode())
                self.wfile.write(f"id: {event['cursor']}0\n: \n\n".encode())

        def log_message(self, *_: Any) -> None:
            """Tests print nothing of their own."""

    return Handler
