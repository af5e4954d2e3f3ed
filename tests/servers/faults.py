"""What a server or the way to it can do wrong; each is a `Fault` for `hub.Hub` or `proxy.Proxy`."""

import itertools
import socket
import struct
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from threading import Barrier, Event
from typing import Any

Fault = Callable[[BaseHTTPRequestHandler, Any], bool]


def is_body(path: str) -> bool:
    """Whether a request is for a file's content, on the Hub or in the tests' bucket."""
    return path.startswith("/storage/") or "/resolve/" in path or ".jsonl" in path


def times(count: int, fault: Fault, where: Callable[[str], bool] = is_body) -> Fault:
    """The fault for the first few requests; all others go through."""
    turns = itertools.count()
    return lambda handler, request: where(request.path) and next(turns) < count and fault(handler, request)


def answer(status: int, **headers: str) -> Fault:
    """Answers with a status and headers; an underscore in a name stands for a dash."""

    def fault(handler: BaseHTTPRequestHandler, request: Any) -> bool:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    return fault


def together(barrier: Barrier) -> Fault:
    """Answers nothing before as many requests as the barrier wants are there at the same time."""

    def fault(handler: BaseHTTPRequestHandler, request: Any) -> bool:
        barrier.wait()
        return False

    return fault


def page(handler: BaseHTTPRequestHandler, request: Any) -> bool:
    """Answers as a portal that wants a login does."""
    body = b"<html>Please log in</html>"
    handler.send_response(200)
    handler.send_header("Content-Type", "text/html")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
    return True


def circle(handler: BaseHTTPRequestHandler, request: Any) -> bool:
    """Sends the client to the address that it asked for."""
    return answer(302, Location=request.path)(handler, request)


def say(body: bytes, **headers: str) -> Fault:
    """Answers with a body of JSON."""

    def fault(handler: BaseHTTPRequestHandler, request: Any) -> bool:
        handler.send_response(200)
        for name, value in ({"Content-Type": "application/json", "Content-Length": str(len(body))} | headers).items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)
        return True

    return fault


def reset(handler: BaseHTTPRequestHandler, request: Any) -> bool:
    """Sends the head and some bytes, and resets the connection."""
    _begin(handler)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True
    return True


def cut(handler: BaseHTTPRequestHandler, request: Any) -> bool:
    """Sends the head and some bytes, and closes the connection."""
    _begin(handler)
    handler.close_connection = True
    return True


def stall(over: Event) -> Fault:
    """Sends the head and some bytes, and then nothing until the event is set."""

    def fault(handler: BaseHTTPRequestHandler, request: Any) -> bool:
        _begin(handler)
        over.wait(60)
        handler.close_connection = True
        return True

    return fault


def _begin(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(206)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    handler.wfile.write(b"{")
    handler.wfile.flush()
