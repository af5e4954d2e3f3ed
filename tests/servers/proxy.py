"""A server before another one that passes requests on, unless a fault answers them."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from servers.hub import Fault, Request

HOP_BY_HOP = ("connection", "transfer-encoding", "keep-alive", "content-length")


@dataclass
class Proxy:
    """The state; `fault` may be set at any time."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    fault: Fault | None = None
    change: Callable[[str, bytes], bytes] = lambda path, body: body
    headers: dict[str, str] = field(default_factory=dict)


@contextmanager
def serve(upstream: str) -> Iterator[Proxy]:
    """Runs a proxy for as long as the context lasts.

    Args:
        upstream: URL of the server behind it.
    """
    proxy = Proxy()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            request = Request(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
            proxy.requests.append(request)
            if proxy.fault and proxy.fault(self, request):
                return
            connection = http.client.HTTPConnection(urlsplit(upstream).netloc)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            content = proxy.change(self.path, answer.read())
            self.send_response(answer.status)
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
            length = answer.headers["Content-Length"] if self.command == "HEAD" else str(len(content))
            for name, value in (kept | proxy.headers | {"Content-Length": length}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_HEAD = do_PUT = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
