"""A Hugging Face Hub that is written to: what `huggingface_hub` 2.4 calls to make a repository, a branch and a commit.

It follows that client (`hf_api.py`: create_repo, create_branch, create_commit, auth_check, whoami; `_commit_api.py`;
`lfs.py`) and the words and codes of the real Hub that it looks at. Large files go to the storage with git-lfs's batch
API. They go to a store of chunks instead wherever hf_xet is installed and not switched off, whatever the server offers;
so a test that wants LFS switches it off, and one that wants Xet names a store in a folder by `xet_url`.
"""

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

import hf_xet
from servers.hub import LFS_BYTES, Files, Handler, Hub, Repository, Request, git_id

WRITE = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/(?P<action>preupload|commit|branch)/(?P<revision>.+)")
ACCESS = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/auth-check/write")
XET_TOKEN = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/xet-write-token/(?P<revision>.+)")
BATCH = re.compile(r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch")
UPLOAD = re.compile(r"/upload/(?P<oid>[0-9a-f]{64})")


@dataclass(frozen=True)
class Account:
    """Whose a token is, and what it may do."""

    name: str
    organisations: tuple[str, ...] = ()
    role: str = "write"


@dataclass
class WritableHub(Hub):
    """The server's state."""

    accounts: dict[str, Account] = field(default_factory=dict)
    uploaded: dict[str, bytes] = field(default_factory=dict)
    """By SHA-256, what the storage has; most of it no commit's."""

    bodies_sent: list[str] = field(default_factory=list)
    """SHA-256 of each body that came, as often as it came."""

    private: set[str] = field(default_factory=set)
    messages: list[str] = field(default_factory=list)
    """Of each commit that was sent."""

    xet_hashes: dict[str, str] = field(default_factory=dict)
    """By SHA-256, the name in the store of chunks of each file that may come there."""

    lost_answers: int = 0
    """How many commits are yet to be made without an answer that says so."""

    ignored: frozenset[str] = frozenset()
    """What a .gitignore of the repository names."""

    def files(self, repo: str, branch: str = "main") -> Files:
        """What a branch holds."""
        repository = self.repositories["model", repo]
        return repository.commits[repository.branches[branch]]

    def stored(self, oid: str) -> bytes | None:
        """A large file's content, from the storage or the store of chunks."""
        if oid not in self.uploaded and oid in self.xet_hashes:
            group = hf_xet.XetSession().new_download_stream_group(endpoint=self.xet_url)
            content = b"".join(group.download_stream(hf_xet.XetFileInfo(self.xet_hashes[oid], None)))
            assert hashlib.sha256(content).hexdigest() == oid
            return content
        return self.uploaded.get(oid)


class WritableHandler(Handler):
    """Answers as the Hub does."""

    hub: WritableHub

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path == "/api/whoami-v2" or ACCESS.fullmatch(path) or XET_TOKEN.fullmatch(path):
            self.receive(path)
        else:
            super().do_GET()

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.receive(unquote(urlsplit(self.path).path))

    do_PUT = do_POST

    def receive(self, path: str) -> None:
        body = self.read_body()
        request = Request(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        self.hub.requests.append(request)
        if self.hub.fault and self.hub.fault(self, request):
            return
        if found := UPLOAD.fullmatch(path):
            self.store(found["oid"], body)
            return
        account = self.hub.accounts.get(self.headers.get("Authorization", "").removeprefix("Bearer "))
        if account is None:
            self.refuse(401, "", "Invalid credentials in Authorization header")
        elif path == "/api/whoami-v2":
            self.answer_account(account)
        elif path == "/api/validate-yaml":
            self.json({"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            self.create(account, json.loads(body))
        elif found := WRITE.fullmatch(path):
            if self.may_write(account, found["repo"]):
                getattr(self, found["action"])(self.hub.repositories["model", found["repo"]], found["revision"], body)
        elif found := BATCH.fullmatch(path):
            if self.may_write(account, found["repo"]):
                self.batch(json.loads(body))
        elif (found := ACCESS.fullmatch(path)) or (found := XET_TOKEN.fullmatch(path)):
            if self.may_write(account, found["repo"]):
                self.json({"accessToken": "xet-token", "exp": 4_000_000_000, "casUrl": self.hub.xet_url})
        else:
            self.reply(404, b"{}")

    def read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def may_write(self, account: Account, repo: str) -> bool:
        """Whether the repository may be written; else the refusal has been sent."""
        is_its_own = repo.partition("/")[0] in (account.name, *account.organisations)
        if ("model", repo) not in self.hub.repositories or (repo in self.hub.private and not is_its_own):
            self.refuse(404, "RepoNotFound", "Repository not found")
        elif account.role == "read" or not is_its_own:
            self.refuse(403, "", "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request")
        else:
            return True
        return False

    def answer_api(self, kind: str, repo: str, rest: str) -> None:
        repository, branch = self.hub.repositories.get((kind, repo)), rest.removeprefix("/revision/")
        if repository and "/" in branch and branch in repository.branches:
            self.json({"id": repo, "sha": repository.sha(repository.branches[branch])})
        else:
            super().answer_api(kind, repo, rest)

    def answer_account(self, account: Account) -> None:
        organisations = [{"type": "org", "name": name, "roleInOrg": "write"} for name in account.organisations]
        token = {"type": "access_token", "accessToken": {"displayName": "tests", "role": account.role}}
        self.json({"type": "user", "name": account.name, "orgs": organisations, "auth": token})

    def create(self, account: Account, wanted: dict[str, str]) -> None:
        owner = wanted.get("organization") or account.name
        repo = f"{owner}/{wanted['name']}"
        if account.role == "read" or owner not in (account.name, *account.organisations):
            self.refuse(403, "", f'You don\'t have the rights to create a model under the namespace "{owner}"')
            return
        answer = {"url": f"{self.hub.url}/{repo}"}
        if ("model", repo) in self.hub.repositories:
            self.reply(409, json.dumps({"error": "You already created this model repo", **answer}).encode())
            return
        self.hub.add("model", repo, {".gitattributes": "*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
        if wanted.get("visibility") == "private":
            self.hub.private.add(repo)
        self.json(answer)

    def branch(self, repository: Repository, name: str, body: bytes) -> None:
        if name in repository.branches:
            self.reply(409, json.dumps({"error": f"Reference {name} already exists"}).encode())
            return
        repository.branches[name] = repository.branches["main"]
        self.json({})

    def preupload(self, repository: Repository, revision: str, body: bytes) -> None:
        there = repository.commits[repository.branches[revision]]
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["size"] >= LFS_BYTES else "regular",
                "shouldIgnore": file["path"] in self.hub.ignored,
                "oid": _oid(there[file["path"]]) if file["path"] in there else None,
            }
            for file in json.loads(body)["files"]
        ]
        self.json({"files": modes})

    def batch(self, asked: dict) -> None:
        objects = []
        for each in asked["objects"]:
            answer = {"oid": each["oid"], "size": each["size"]}
            if each["oid"] not in self.hub.uploaded:
                href = f"{self.hub.storage_url}/upload/{each['oid']}?X-Amz-Signature=secret-signature"
                answer["actions"] = {"upload": {"href": href}}
            objects.append(answer)
        self.json({"transfer": "basic", "objects": objects})

    def store(self, oid: str, body: bytes) -> None:
        assert "Authorization" not in self.headers, "the storage is not to see the token"
        self.hub.bodies_sent.append(hashlib.sha256(body).hexdigest())
        if self.hub.bodies_sent[-1] != oid:
            self.reply(400, b"<Error><Code>XAmzContentSHA256Mismatch</Code></Error>")
            return
        self.hub.uploaded[oid] = body
        self.reply(200, b"")

    def commit(self, repository: Repository, revision: str, body: bytes) -> None:
        header, *operations = [json.loads(line) for line in body.splitlines()]
        head = repository.branches[revision]
        if header["value"].get("parentCommit", repository.sha(head)) != repository.sha(head):
            self.refuse(412, "", "A commit has happened since. Please refresh and try again.")
            return
        files = dict(repository.commits[head])
        for operation in operations:
            if refusal := self.apply(files, operation["key"], operation["value"]):
                self.refuse(*refusal)
                return
        repository.commits.append(files)
        repository.branches[revision] = len(repository.commits) - 1
        self.hub.messages.append(header["value"]["summary"])
        if self.hub.lost_answers:
            self.hub.lost_answers -= 1
            self.reply(503, b"")
            return
        oid = repository.sha(repository.branches[revision])
        self.json({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/o/n/commit/{oid}"})

    def apply(self, files: Files, kind: str, value: dict) -> tuple[int, str, str] | None:
        path = value["path"]
        if kind == "file":
            files[path] = base64.b64decode(value["content"])
        elif kind == "lfsFile":
            content = self.hub.stored(value["oid"])
            if content is None or len(content) != value["size"]:
                return 400, "", f"Your push was rejected: {path} points to an LFS object that is not there"
            files[path] = content
        elif path not in files:
            return 404, "EntryNotFound", "A file with this name doesn't exist"
        else:
            del files[path]
        return None


def _oid(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if len(content) >= LFS_BYTES else git_id(content)
