"""What can go wrong on the way; each is a `Fault` for `Server.fail`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from threading import Event


@dataclass(frozen=True)
class Reply:
    """An answer before it is sent."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)

    def send(self, handler: BaseHTTPRequestHandler, part: int | None = None) -> None:
        """Sends it, or its first bytes only."""
        handler.send_response(self.status)
        named = {"Content-Type": self.content_type, "Content-Length": str(len(self.body))}
        for name, value in (named | self.headers).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(self.body[:part])
        handler.wfile.flush()


Fault = Callable[[BaseHTTPRequestHandler, Callable[[], Reply]], None]
"""Is given the request and what would handle it, and answers in its own way."""


def status(code: int, *, retry_after: int | None = None, message: str = "fault") -> Fault:
    """Refuses with a status, as the API server words it."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    body = b'{"code":2,"message":"%s","details":[]}' % message.encode()
    return lambda handler, handle: Reply(code, body, headers=headers).send(handler)


def page(code: int = 502, text: str = "Bad Gateway") -> Fault:
    """Answers with the HTML page of a proxy."""
    body = f"<html><head><title>{code} {text}</title></head><body><h1>{code} {text}</h1></body></html>".encode()
    return lambda handler, handle: Reply(code, body, "text/html").send(handler)


def drop(handler: BaseHTTPRequestHandler, handle: Callable[[], Reply]) -> None:
    """Closes the connection; the request is not handled."""
    handler.close_connection = True


def lose_answer(handler: BaseHTTPRequestHandler, handle: Callable[[], Reply]) -> None:
    """Handles the request and closes the connection without an answer."""
    handle()
    handler.close_connection = True


def deny_what_was_done(handler: BaseHTTPRequestHandler, handle: Callable[[], Reply]) -> None:
    """Handles the request and says 503, as a proxy does that lost the server before its answer."""
    handle()
    status(503, message="upstream connect error or disconnect/reset before headers")(handler, handle)


def cut(handler: BaseHTTPRequestHandler, handle: Callable[[], Reply]) -> None:
    """Handles the request and closes the connection after half of the answer's body."""
    reply = handle()
    reply.send(handler, len(reply.body) // 2)
    handler.close_connection = True


@dataclass
class Stall:
    """Answers when the test says so.

    Args:
        begun: Is set when a request has come.
        over: The test sets it.
        limit: Seconds after which the connection is closed in any case.
    """

    begun: Event = field(default_factory=Event)
    over: Event = field(default_factory=Event)
    limit: float = 60

    def __call__(self, handler: BaseHTTPRequestHandler, handle: Callable[[], Reply]) -> None:
        """Waits, and handles the request then."""
        self.begun.set()
        if self.over.wait(self.limit):
            handle().send(handler)
        handler.close_connection = True
