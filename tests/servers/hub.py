"""A Hugging Face Hub on loopback, with the real one's routes, and with faults on demand."""

import hashlib
import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

LFS_BYTES = 1000
"""Files of this size and more are kept in LFS, on another host."""

ACTIONS = "revision|tree|paths-info|xet-read-token"
ROUTE = re.compile(rf"/api/(?P<kind>model|dataset)s/(?P<repo>[^/]+(?:/[^/]+)?)(?P<rest>|/(?:{ACTIONS})/.*)")
RESOLVE = re.compile(r"/(?:(?P<kind>dataset)s/)?(?P<repo>[^/]+(?:/[^/]+)?)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")

Files = dict[str, bytes]


@dataclass
class Repository:
    """A repository: its commits, newest last, and who may read it."""

    commits: list[Files] = field(default_factory=list)
    branches: dict[str, int] = field(default_factory=dict)
    token: str = ""
    gated: bool = False
    sizes: dict[str, int] = field(default_factory=dict)
    xet_hashes: dict[str, str] = field(default_factory=dict)

    def sha(self, number: int) -> str:
        listing = [(name, git_id(content)) for name, content in self.commits[number].items()]
        return hashlib.sha1(repr((number, sorted(listing))).encode()).hexdigest()

    def find(self, revision: str) -> tuple[str, Files] | None:
        by_name = {sha: number for number in range(len(self.commits)) for sha in [self.sha(number)]} | self.branches
        if revision not in by_name:
            return None
        return self.sha(by_name[revision]), self.commits[by_name[revision]]


@dataclass
class Request:
    """One request, as the tests want to see it."""

    method: str
    path: str
    headers: dict[str, str]


Fault = Callable[[BaseHTTPRequestHandler, Request], bool]
"""Answers a request in its own way and returns True, or returns False to leave it to the Hub."""


@dataclass
class Hub:
    """The server's state; `fault` may be set at any time."""

    url: str = ""
    storage_url: str = ""
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    fault: Fault | None = None
    page: int = 1000
    next_page_url: str = ""
    xet_url: str = ""
    knows_ranges: bool = True
    corrupt: Callable[[str, int, bytes], bytes] | None = None

    def add(self, kind: str, name: str, files: dict[str, bytes | str], branch: str = "main") -> str:
        """Commits files to a branch of a repository, and returns the commit."""
        repository = self.repositories.setdefault((kind, name), Repository())
        repository.commits.append({path: _bytes(content) for path, content in files.items()})
        repository.branches[branch] = len(repository.commits) - 1
        return repository.sha(len(repository.commits) - 1)

    def bodies(self) -> list[str]:
        """The addresses of the files' bodies that were asked for."""
        return [each.path for each in self.requests if each.path.startswith("/storage/") or "/resolve/" in each.path]


def _bytes(content: bytes | str) -> bytes:
    return content.encode() if isinstance(content, str) else content


@cache
def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@cache
def git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers as the Hub does."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        if "://" in self.path:  # as a proxy is asked
            self.path = "/" + self.path.split("/", 3)[3]
        length = int(self.headers.get("Content-Length", 0))
        self.sent = self.rfile.read(length).decode()
        request = Request(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        self.hub.requests.append(request)
        if self.hub.fault and self.hub.fault(self, request):
            return
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/storage/"):
            self.answer_storage(path)
        elif found := ROUTE.fullmatch(path):
            self.answer_api(**found.groupdict())
        elif found := RESOLVE.fullmatch(path):
            self.answer_file(**found.groupdict())
        else:
            self.reply(404, b"{}")

    do_POST = do_HEAD = do_GET

    def repository(self, kind: str, name: str) -> Repository | None:
        """The repository if it may be read; else the refusal has been sent, as the Hub words it."""
        found = self.hub.repositories.get((kind, name))
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given.startswith("bad"):
            self.refuse(401, "", "Invalid credentials in Authorization header")
        elif found is None or (found.token and given != found.token and not found.gated):
            self.refuse(404 if given else 401, "RepoNotFound", "Repository not found")
        elif found.gated and given != found.token and "/resolve/" in self.path:
            self.refuse(403 if given else 401, "GatedRepo", f"Access to {name} is restricted")
        else:
            return found
        return None

    def answer_api(self, kind: str, repo: str, rest: str) -> None:
        if repo in self.hub.moved:
            location = self.path.replace(repo, self.hub.moved[repo], 1)
            self.reply(307, b"", {"Location": location})
            return
        repository = self.repository(kind, repo)
        if repository is None:
            return
        action, _, tail = rest.strip("/").partition("/")
        revision, _, inner = tail.partition("/")
        found = repository.find(revision or "main")
        if found is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        sha, files = found
        if action == "tree":
            self.answer_tree(repository, files, inner)
        elif action == "xet-read-token":
            self.json({"accessToken": "xet-token", "exp": 4_000_000_000, "casUrl": self.hub.xet_url})
        elif action == "paths-info":
            asked = parse_qs(self.sent)["paths"]
            entries = [_entry(repository, path, files[path]) for path in asked if path in files]
            folders = [path for path in asked if any(name.startswith(f"{path}/") for name in files)]
            self.json([*entries, *({"type": "directory", "path": path, "oid": "0", "size": 0} for path in folders)])
        else:
            names = [{"rfilename": name} for name in files]
            self.json({"id": repo, "sha": sha, "siblings": names, "private": False, "tags": [], "downloads": 0})

    def answer_tree(self, repository: Repository, files: Files, inner: str) -> None:
        below = f"{inner}/" if inner else ""
        entries = [_entry(repository, path, body) for path, body in files.items() if path.startswith(below)]
        start = int(parse_qs(urlsplit(self.path).query).get("cursor", ["0"])[0])
        stop = start + self.hub.page
        page, more = entries[start:stop], {}
        if len(entries) > stop:
            base = (self.hub.next_page_url or self.hub.url) + self.path.partition("?")[0]
            more = {"Link": f'<{base}?recursive=true&cursor={stop}>; rel="next"'}
        self.json(page, more)

    def answer_file(self, kind: str | None, repo: str, revision: str, path: str) -> None:
        if repo in self.hub.moved:
            self.reply(307, b"", {"Location": self.path.replace(repo, self.hub.moved[repo], 1)})
            return
        repository = self.repository(kind or "model", repo)
        if repository is None:
            return
        found = repository.find(revision)
        if found is None or path not in found[1]:
            self.refuse(404, "EntryNotFound" if found else "RevisionNotFound", "not found")
            return
        sha, files = found
        body = files[path]
        if len(body) < LFS_BYTES:
            self.content(path, body, {"X-Repo-Commit": sha, "ETag": f'"{git_id(body)}"'})
            return
        digest = _sha256(body)
        location = f"{self.hub.storage_url}/storage/{digest}?Signature=secret-signature"
        headers = {"X-Repo-Commit": sha, "X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(body))}
        self.reply(302, b"", {"Location": location, **headers})

    def answer_storage(self, path: str) -> None:
        digest = path.rpartition("/")[2]
        for repository in self.hub.repositories.values():
            for files in repository.commits:
                for name, body in files.items():
                    if len(body) >= LFS_BYTES and _sha256(body) == digest:
                        self.content(name, body, {"ETag": f'"{digest}"'})
                        return
        self.reply(404, b"")

    def content(self, path: str, body: bytes, headers: dict[str, str]) -> None:
        asked = self.headers.get("Range", "") if self.hub.knows_ranges else ""
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
        start, stop = (int(span[1]), int(span[2] or len(body) - 1) + 1) if span else (0, len(body))
        part = memoryview(body)[start:stop]
        if self.hub.corrupt:
            part = memoryview(self.hub.corrupt(path, start, bytes(part)))
        if span:
            headers |= {"Content-Range": f"bytes {start}-{stop - 1}/{len(body)}"}
        self.reply(206 if span else 200, part, {"Accept-Ranges": "bytes", **headers})

    def json(self, value: object, headers: dict[str, str] | None = None) -> None:
        self.reply(200, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def refuse(self, status: int, code: str, message: str) -> None:
        self.reply(status, json.dumps({"error": message}).encode(), {"X-Error-Code": code, "X-Error-Message": message})

    def reply(self, status: int, body: bytes | memoryview, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _entry(repository: Repository, path: str, body: bytes) -> dict[str, object]:
    size = repository.sizes.get(path, len(body))
    entry: dict[str, object] = {"type": "file", "path": path, "oid": git_id(body), "size": size}
    if len(body) >= LFS_BYTES:
        if path in repository.xet_hashes:
            entry["xetHash"] = repository.xet_hashes[path]
        entry["lfs"] = {"oid": _sha256(body), "size": size, "pointerSize": 130}
    return entry


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


@contextmanager
def serve(
    certificate: tuple[Path, Path] | None = None, hub: Hub | None = None, answers: type[Handler] = Handler
) -> Iterator[Hub]:
    """Runs a Hub and its storage, which has another origin, for as long as the context lasts.

    Args:
        certificate: Files of a certificate and of its key, to speak TLS.
        hub: Its state; an empty one if not given.
        answers: What answers requests.
    """
    hub = hub or Hub()
    handler = type("BoundHandler", (answers,), {"hub": hub})
    servers = [_Server(("127.0.0.1", 0), handler) for _ in range(2)]
    for server in servers:
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    scheme = "https" if certificate else "http"
    hub.url, hub.storage_url = (f"{scheme}://127.0.0.1:{server.server_port}" for server in servers)
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
