"""An API server on loopback that gives prepared answers and cuts connections where it is told."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import urllib3
from kubernetes import client

from kfp_finetune.cluster.client import BoundedClient

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Args:
        path: Without the query.
        query: The query's parameters.
        method: Of HTTP.
        body: What was sent.
    """

    path: str
    query: dict[str, str]
    method: str = "GET"
    body: bytes = b""


@dataclass
class Server:
    """The server.

    Args:
        requests: All so far.
        choose: Makes the answer to a request.
    """

    choose: Callable[[Request], Answer]
    requests: list[Request] = field(default_factory=list)


class Stop(threading.Event):
    """Notes how long it was to be waited for, and does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.pauses.append(timeout)
        return self.is_set()


def say(body: Any, status: int = 200) -> Answer:
    """Answers with JSON, or with text as it is."""
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def refuse(status: int) -> Answer:
    """Answers as the API server does when it refuses or fails."""
    return say({"kind": "Status", "status": "Failure", "code": status, "reason": "R", "message": "no"}, status)


def stream(*pieces: bytes, cut: bool = False) -> Answer:
    """Answers with a body in pieces; ends it well, or cuts the connection behind the last one."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for piece in filter(None, pieces):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        if cut:
            handler.close_connection = True
        else:
            handler.wfile.write(b"0\r\n\r\n")

    return answer


def lines(*objects: Any) -> bytes:
    """Objects as a watch writes them."""
    return b"".join(json.dumps(one).encode() + b"\n" for one in objects)


def ending(stop: threading.Event, answer: Answer) -> Answer:
    """The answer, which is the last one that is to be asked for."""

    def last(handler: BaseHTTPRequestHandler) -> None:
        stop.set()
        answer(handler)

    return last


def in_order(answers: Sequence[Answer]) -> Callable[[Request], Answer]:
    """Gives one answer after the other."""
    rest: Iterator[Answer] = iter(answers)
    return lambda request: next(rest)


@contextmanager
def serving(choose: Callable[[Request], Answer]) -> Iterator[tuple[Server, client.ApiClient]]:
    """A server, and a client of it that makes every attempt by itself."""
    server = Server(choose)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            request = Request(parts.path, dict(parse_qsl(parts.query)), self.command, body)
            server.requests.append(request)
            server.choose(request)(self)

        do_POST = do_PATCH = do_DELETE = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        settings = client.Configuration(host=f"http://127.0.0.1:{http.server_port}")
        settings.retries = urllib3.Retry(0)
        try:
            with BoundedClient(settings) as api:
                yield server, api
        finally:
            http.shutdown()
