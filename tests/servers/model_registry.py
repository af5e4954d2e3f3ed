"""A Kubeflow Model Registry on loopback: what `model_registry` 0.3 calls to register a model, and faults on demand.

Each request and each answer goes through the client's own classes of the REST API (`mr_openapi`), and a field that they
do not have is refused. As in the real server (`internal/core` of kubeflow/model-registry): names are unique, those of
versions and artifacts below their parent, and a second one is answered with 409; what is not found with 404; a PATCH
leaves alone what it does not name, and takes custom properties as a whole.
"""

import itertools
import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import mr_openapi
from servers.hub import Request

PREFIX = re.compile(r"/api/model_registry/v1(alpha3)?/")
ITEM = re.compile(r"(?P<kind>model_versions|model_artifacts)/(?P<id>\d+)")
ARTIFACTS = re.compile(r"model_versions/(?P<id>\d+)/artifacts")

Fault = Callable[[BaseHTTPRequestHandler, Request], bool]
Resource = dict[str, Any]

SHOWN = {
    "registered_models": mr_openapi.RegisteredModel,
    "model_versions": mr_openapi.ModelVersion,
    "model_artifacts": mr_openapi.ModelArtifact,
}
CREATED = {"registered_models": mr_openapi.RegisteredModelCreate, "model_versions": mr_openapi.ModelVersionCreate}
UPDATED = {"model_versions": mr_openapi.ModelVersionUpdate, "model_artifacts": mr_openapi.ModelArtifactUpdate}
FOUND = {
    "registered_model": "registered_models",
    "model_version": "model_versions",
    "model_artifact": "model_artifacts",
}


@dataclass
class Registry:
    """The server's state; `fault` may be set at any time."""

    url: str = ""
    token: str = ""
    """That every request must carry; empty for none."""

    versions: tuple[str, ...] = ("v1", "v1alpha3")
    """Of the API that it has."""

    requests: list[Request] = field(default_factory=list)
    kept: dict[str, list[Resource]] = field(default_factory=lambda: {kind: [] for kind in SHOWN})
    """Of each kind, as JSON; `parent` is no field of the API."""

    fault: Fault | None = None
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def writes(self) -> list[str]:
        """What was asked to be written, in order."""
        return [
            f"{each.method} {PREFIX.sub('', each.path)}" for each in self.requests if each.method in ("POST", "PATCH")
        ]

    def properties(self, kind: str, number: int = -1) -> dict[str, Any]:
        """Custom properties of a resource, by name, without their types."""
        properties = self.kept[kind][number].get("customProperties", {})
        return {
            name: next(value for key, value in typed.items() if key != "metadataType")
            for name, typed in properties.items()
        }


class Handler(BaseHTTPRequestHandler):
    """Answers as the registry does."""

    protocol_version = "HTTP/1.1"
    registry: Registry

    def do_GET(self) -> None:
        request = Request(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.registry.requests.append(request)
        if self.registry.fault and self.registry.fault(self, request):
            return
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        if self.registry.token and self.headers.get("Authorization") != f"Bearer {self.registry.token}":
            self.refuse(401, "Unauthorized", "no valid token")
        elif not path.startswith(tuple(f"/api/model_registry/{version}/" for version in self.registry.versions)):
            self.reply(404, "404 page not found\n", "text/plain")
        else:
            with self.registry.lock:
                self.act(PREFIX.sub("", path), {name: values[0] for name, values in query.items()})

    do_POST = do_PATCH = do_GET

    def act(self, path: str, query: dict[str, str]) -> None:
        if self.command == "GET" and path in FOUND:
            self.find(FOUND[path], query)
        elif self.command == "GET" and path == "registered_models":
            items = [self.shown(path, each) for each in self.registry.kept[path]][: int(query.get("pageSize", 100))]
            page = {"items": items, "size": len(items), "pageSize": len(items), "nextPageToken": ""}
            self.reply(200, _checked(mr_openapi.RegisteredModelList, page).to_json())
        elif self.command == "POST" and path in CREATED:
            wanted = self.read(CREATED[path])
            self.create(path, wanted, wanted.get("registeredModelId", ""))
        elif self.command == "POST" and (found := ARTIFACTS.fullmatch(path)):
            if self.known("model_versions", found["id"]):
                self.create("model_artifacts", self.read(mr_openapi.ModelArtifact), found["id"])
        elif self.command == "PATCH" and (found := ITEM.fullmatch(path)):
            if there := self.known(found["kind"], found["id"]):
                there |= self.read(UPDATED[found["kind"]])
                self.answer(200, found["kind"], there)
        else:
            self.reply(404, "404 page not found\n", "text/plain")

    def read(self, model: Any) -> Resource:
        return _checked(model, json.loads(self.body)).to_dict()

    def find(self, kind: str, query: dict[str, str]) -> None:
        assert set(query) <= {"name", "parentResourceId"}, query
        if kind != "registered_models" and len(query) < 2:
            self.refuse(400, "Bad Request", "invalid parameters call, supply either (name and parentResourceId), or id")
            return
        wanted = query["name"], query.get("parentResourceId", "")
        found = [each for each in self.registry.kept[kind] if (each["name"], each["parent"]) == wanted]
        if found:
            self.answer(200, kind, found[0])
        else:
            self.refuse(404, "Not Found", f"no {kind} found for name={wanted[0]}: not found")

    def known(self, kind: str, number: str) -> Resource | None:
        found = next((each for each in self.registry.kept[kind] if each["id"] == number), None)
        if found is None:
            self.refuse(404, "Not Found", f"no {kind} found for id {number}: not found")
        return found

    def create(self, kind: str, wanted: Resource, parent: str) -> None:
        assert "id" not in wanted, "a resource that has an id is updated"
        if any((each["name"], each["parent"]) == (wanted["name"], parent) for each in self.registry.kept[kind]):
            self.refuse(409, "Conflict", f"{kind} with name {wanted['name']} already exists: conflict")
            return
        made = {**wanted, "id": str(next(self.registry.ids)), "createTimeSinceEpoch": "1", "parent": parent}
        self.registry.kept[kind].append(made)
        self.answer(201, kind, made)

    def shown(self, kind: str, resource: Resource) -> Resource:
        return {name: value for name, value in resource.items() if name != "parent"}

    def answer(self, status: int, kind: str, resource: Resource) -> None:
        self.reply(status, _checked(SHOWN[kind], self.shown(kind, resource)).to_json())

    def refuse(self, status: int, code: str, message: str) -> None:
        self.reply(status, mr_openapi.Error(code=code, message=message).to_json())

    def reply(self, status: int, body: str, kind: str = "application/json; charset=UTF-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


def _checked(model: Any, fields: Resource) -> Any:
    """The client's own object of a class of the API; a field that the class does not have is a mistake."""
    known = {info.alias or name for name, info in model.model_fields.items()}
    assert set(fields) <= known, set(fields) - known
    return model.from_dict(fields)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news; what it is answered with tells of anything else."""


@contextmanager
def serve(certificate: tuple[Path, Path] | None = None, token: str = "") -> Iterator[Registry]:
    """Runs a registry for as long as the context lasts.

    Args:
        certificate: Files of a certificate and of its key, to speak TLS.
        token: That every request must carry; empty for none.
    """
    registry = Registry(token=token)
    server = _Server(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"registry": registry}))
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    registry.url = f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
