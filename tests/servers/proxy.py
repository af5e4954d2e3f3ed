"""A server before another one that passes requests on, unless a fault answers them."""

import http.client
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from servers.hub import Fault, Request
from servers.s3 import ACCESS_KEY, SECRET_KEY

KEPT = ("Range", "If-Match", "x-amz-checksum-mode")
HOP_BY_HOP = ("connection", "transfer-encoding", "keep-alive", "content-length")


@dataclass
class Proxy:
    """The state; `fault` may be set at any time."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    fault: Fault | None = None
    change: Callable[[str, bytes], bytes] = lambda path, body: body
    headers: dict[str, str] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    etags: dict[str, str] = field(default_factory=dict)
    """What the client sees instead of each ETag."""


def _replaced(text: str, pairs: dict[str, str]) -> str:
    for old, new in pairs.items():
        text = text.replace(old, new)
    return text


def _with_real_etags(handler: BaseHTTPRequestHandler, upstream: str, proxy: Proxy) -> dict[str, str]:
    """The headers of a request for S3 as if the client had seen the real ETags; they are signed again."""
    back = {shown: real for real, shown in proxy.etags.items()}
    kept = {name: _replaced(value, back) for name, value in handler.headers.items() if name in KEPT}
    request = AWSRequest(handler.command, upstream + handler.path, headers=kept)
    S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", "us-east-1").add_auth(request)
    return dict(request.headers)


@contextmanager
def serve(upstream: str, certificate: tuple[Path, Path] | None = None) -> Iterator[Proxy]:
    """Runs a proxy for as long as the context lasts.

    Args:
        upstream: URL of the server behind it.
        certificate: Files of a certificate and of its key, to speak TLS.
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
            headers = _with_real_etags(self, upstream, proxy) if proxy.etags else dict(self.headers)
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = _replaced(proxy.change(self.path, answer.read()).decode("latin-1"), proxy.etags).encode("latin-1")
            self.send_response(answer.status)
            kept = {
                name: _replaced(value, proxy.etags)
                for name, value in answer.headers.items()
                if name.lower() not in (*HOP_BY_HOP, *proxy.dropped)
            }
            length = answer.headers["Content-Length"] if self.command == "HEAD" else str(len(content))
            for name, value in (kept | proxy.headers | {"Content-Length": length}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    proxy.url = f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
