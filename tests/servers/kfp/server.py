"""The server: connections, faults, and what a test sees and sets."""

import re
import ssl
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from servers.kfp import faults
from servers.kfp.access import Access
from servers.kfp.calls import LARGEST_BODY, Call, Request, read_target
from servers.kfp.faults import Fault, Reply
from servers.kfp.routes import answer
from servers.kfp.runs import Run
from servers.kfp.store import Store

NOT_FOUND = Reply(404, b'{"code":5,"message":"Not Found","details":[]}')
NO_PAGE = Reply(404, b"404 page not found\n", "text/plain; charset=utf-8")
NO_ROUTE = Reply(404, b"<!DOCTYPE html><html><body><pre>Cannot GET</pre></body></html>", "text/html; charset=utf-8")


@dataclass
class _Planned:
    method: str
    pattern: re.Pattern[str]
    fault: Fault
    times: int


@dataclass
class Server:
    """The server's state; a test may look and set at any time.

    Args:
        url: Its address.
        store: What was made, as the API shows it.
        address: Whose address it is: "api", the API server's; "ui", the UI's, which passes on what begins with
            /apis/v2beta1 and has routes of its own for logs and artifacts; "both" gives all.
        artifacts: Objects of the bucket "mlpipeline" by their keys.
        requests: All so far, those that met a fault too.
        unknown: What the server does not know.
    """

    store: Store
    access: Access
    prefix: str = ""
    address: str = "both"
    url: str = ""
    artifacts: dict[str, bytes] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    planned: list[_Planned] = field(default_factory=list)

    @property
    def tokens(self) -> set[str] | None:
        """Bearer tokens that are accepted; None asks nobody."""
        return self.access.tokens

    @tokens.setter
    def tokens(self, tokens: set[str] | None) -> None:
        self.access.tokens = tokens

    @property
    def gate(self) -> str:
        """Who refuses a token: "kfp", "istio" or "dex"."""
        return self.access.gate

    @gate.setter
    def gate(self, gate: str) -> None:
        self.access.gate = gate

    @property
    def namespaces(self) -> set[str]:
        """Where the user has rights."""
        return self.access.namespaces

    @namespaces.setter
    def namespaces(self, namespaces: set[str]) -> None:
        self.access.namespaces = namespaces

    def fail(self, method: str, pattern: str, fault: Fault | int, times: int = 1) -> None:
        """Lets the next requests meet a fault.

        Args:
            method: Of the requests.
            pattern: Is searched in the path.
            fault: One of `faults`, or a status.
            times: How many requests meet it.
        """
        made = faults.status(fault) if isinstance(fault, int) else fault
        self.planned.append(_Planned(method, re.compile(pattern), made, times))

    def run(self, name: str) -> Run:
        """The handle of a run.

        Args:
            name: Its id, or its name if there is one run of it.
        """
        with self.store.lock:
            if name in self.store.runs:
                return self.store.runs[name]
            found = [run for run in self.store.runs.values() if run.shown["display_name"] == name]
        if len(found) != 1:
            raise KeyError(f"{len(found)} runs are named {name}")
        return found[0]

    def fire(self, recurring_run: str) -> Run:
        """Makes the next run of a recurring run.

        Args:
            recurring_run: Its id.
        """
        with self.store.lock:
            return self.store.fire(recurring_run)

    def take_fault(self, method: str, path: str) -> Fault | None:
        """The fault that a request is to meet."""
        with self.store.lock:
            for plan in self.planned:
                if plan.times and plan.method == method and plan.pattern.search(path):
                    plan.times -= 1
                    return plan.fault
        return None

    def handle(self, request: Request, body: bytes) -> Reply:
        """Answers a request."""
        with self.store.lock:
            try:
                return self._answer(request, body)
            except Exception:
                self.unknown.append(f"{request.method} {request.path}\n{traceback.format_exc()}")
                return Reply(501, b'{"code":12,"message":"the tests\' server does not know this","details":[]}')

    def _answer(self, request: Request, body: bytes) -> Reply:
        if refused := self.access.refuse_at_gate(request.path, request.headers):
            return refused
        path = request.path.removeprefix(self.prefix)
        if path in ("/artifacts/get", "/k8s/pod/logs") and request.method == "GET":
            if self.address == "api":
                return NO_PAGE
            return self._give_artifact(request.query) if path == "/artifacts/get" else self._give_log(request.query)
        if path.startswith("/apis/v1alpha1/") and self.address == "ui":
            return NO_ROUTE
        call = Call(request, body, self.store, self.access)
        reply = answer(call, request.method, path) if request.path.startswith(f"{self.prefix}/") else None
        if reply is None:
            self.unknown.append(f"{request.method} {request.path}")
        return reply or NOT_FOUND

    def _give_log(self, query: dict[str, str]) -> Reply:
        run, pod = self.store.runs.get(query.get("runid", "")), query["podname"]
        log = run.pod_log(pod) if run else None
        if run and log is None and self.store.archives_logs:
            log = run.archived_log(f"{run.workflow.name}-{pod.rpartition('-')[2]}")
        if log is None:
            return Reply(500, b"Could not get main container logs: Error: Unable to retrieve workflow", "text/plain")
        return Reply(200, log.encode(), "text/plain; charset=utf-8")

    def _give_artifact(self, query: dict[str, str]) -> Reply:
        if query["source"] != "minio" or query["bucket"] != "mlpipeline":
            raise NotImplementedError(f"artifacts of {query}")
        content = self.artifacts.get(query["key"])
        if content is None:
            return Reply(404, f"Failed to get object in bucket mlpipeline at path {query['key']}".encode(), "text/html")
        return Reply(200, content, "application/octet-stream")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Server

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, query = read_target(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, path, query, headers, body if len(body) <= LARGEST_BODY else b"")
        self.state.requests.append(request)
        fault = self.state.take_fault(self.command, path)
        if fault:
            fault(self, lambda: self.state.handle(request, body))
        else:
            self.state.handle(request, body).send(self)

    do_POST = do_DELETE = do_PUT = do_PATCH = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Connections(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


@contextmanager
def serve(
    *,
    multi_user: bool = False,
    tokens: set[str] | None = None,
    tls: tuple[Path, Path] | None = None,
    prefix: str = "",
    address: str = "both",
    archives_logs: bool = False,
) -> Iterator[Server]:
    """Runs the server for as long as the context lasts.

    Args:
        multi_user: Whether namespaces keep users apart; the user has rights in "team" at first.
        tokens: Bearer tokens that are accepted.
        tls: Files of a certificate and of its key, to speak TLS.
        prefix: Path in front of all others, such as "/pipeline".
        address: Whose address it is: see `Server`.
        archives_logs: Whether logs are kept when their pods are gone.

    Raises:
        AssertionError: If something was asked that the server does not know.
    """
    access = Access(multi_user, tokens, "kfp" if multi_user else "istio", {"team"} if multi_user else set())
    store = Store(multi_user, archives_logs=archives_logs)
    if not multi_user:
        store.default_experiment()
    server = Server(store, access, prefix, address)
    connections = _Connections(("127.0.0.1", 0), type("BoundHandler", (_Handler,), {"state": server}))
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        connections.socket = context.wrap_socket(connections.socket, server_side=True)
    threading.Thread(target=connections.serve_forever, args=[0.02], daemon=True).start()
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{connections.server_port}{prefix}"
    try:
        yield server
    finally:
        connections.shutdown()
        connections.server_close()
    assert not server.unknown, "\n".join(["the server does not know:", *server.unknown])
