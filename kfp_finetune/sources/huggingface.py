"""Repositories of the Hugging Face Hub, pinned to a commit."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

from kfp_finetune._version import VERSION
from kfp_finetune.errors import UserError, refuse
from kfp_finetune.sources import retries
from kfp_finetune.sources.arrival import RemoteFile
from kfp_finetune.sources.cards import CARD_BYTES
from kfp_finetune.sources.checksums import Checksum
from kfp_finetune.sources.download import Remote, download
from kfp_finetune.sources.hub_client import endpoint, session
from kfp_finetune.sources.hub_configs import Config, choose_config
from kfp_finetune.sources.hub_errors import explain
from kfp_finetune.sources.names import check_names, is_hidden
from kfp_finetune.sources.patterns import Patterns
from kfp_finetune.sources.redaction import redact
from kfp_finetune.sources.xet import XetStore, is_xet_there
from kfp_finetune.workspace import FileEntry

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

COMMIT = re.compile(r"[0-9a-f]{40}")
SPECIAL_REVISION = re.compile(r"refs/(convert|pr)/[^/]+")
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
ENDING_OF_A_FILE = re.compile(r"\.(jsonl?|csv|parquet|arrow|txt|xml|safetensors|bin|gz|zip)$")

Result = TypeVar("Result")


@dataclass(frozen=True)
class HubAddress:
    """A place on the Hub.

    Args:
        repository: "ORGANISATION/NAME", or "NAME" alone for the oldest ones.
        revision: A branch, tag or commit; empty for the default branch.
        path: A folder or file in the repository; empty for all of it.
    """

    repository: str
    revision: str
    path: str


def repository_name(uri: str) -> str:
    """What peft and transformers call a model: a Hub repository's name alone; any other URI as it is.

    Args:
        uri: As the user wrote it.
    """
    rest = uri.removeprefix("hf://")
    if rest == uri and (Path(uri).exists() or not is_hub_name(uri)):
        return uri
    return parse_address("model", uri, rest).repository


def parse_address(what: str, uri: str, rest: str) -> HubAddress:
    """Reads ORGANISATION/NAME[@REVISION][/PATH] or NAME[@REVISION], as `huggingface_hub.HfFileSystem` writes them.

    Args:
        what: "dataset" or "model"; the prefix "datasets/" or "models/" may stand before the name.
        uri: As the user wrote it, for messages.
        rest: The address without its scheme.

    Raises:
        UserError: If it is no such address.
    """
    address = rest.removeprefix(f"{what}s/")
    first = re.split("[/@]", address, maxsplit=1)[0]
    repository = first
    if address[len(first) :].startswith("/"):
        repository = re.split("[/@]", address[len(first) + 1 :], maxsplit=1)[0]
        repository = f"{first}/{repository}" if repository else first
    revision, path = "", address[len(repository) :].strip("/")
    if path.startswith("@"):
        special = SPECIAL_REVISION.match(path, 1)
        revision = special[0] if special else path[1:].partition("/")[0]
        path = path[1 + len(revision) :].strip("/")
        revision = unquote(revision)
    parts = repository.split("/")
    if not all(NAME.fullmatch(part) for part in parts) or ("@" in address and not revision and path == ""):
        raise refuse(
            what,
            redact(repr(uri)),
            "hf://ORGANISATION/NAME, with @REVISION and /FOLDER or /FILE after it if wanted",
            "Copy the name from the repository's page.",
        )
    if first in ("datasets", "models", "spaces"):
        raise refuse(what, redact(repr(uri)), f"a {what} repository", f"Give the address of a {what}.")
    return HubAddress(repository, revision, path)


def is_hub_name(text: str) -> bool:
    """Whether a text without a scheme can be a repository's name: NAME or ORGANISATION/NAME, with @REVISION or not."""
    name = text.partition("@")[0]
    parts = name.split("/")
    return len(parts) <= 2 and all(map(NAME.fullmatch, parts)) and not ENDING_OF_A_FILE.search(name)


@dataclass(frozen=True)
class HubSource:
    """A dataset or model repository, or a folder or file in one, at one commit.

    The token is `huggingface_hub`'s: the variable HF_TOKEN, or what `hf auth login` left. HF_ENDPOINT, HTTPS_PROXY,
    NO_PROXY and SSL_CERT_FILE are honoured. Hidden files are left out.

    Args:
        what: "dataset" or "model".
        uri: As the user wrote it.
        address: What it says.
        patterns: Which files of the repository or folder are wanted; a single file is always wanted.
        config: Of a whole dataset repository, the configuration that is wanted; empty for the default one.
    """

    what: str
    uri: str
    address: HubAddress
    patterns: Patterns
    config: str = ""

    @property
    def origin(self) -> str:
        """The repository and the path in it, on the Hub that is asked."""
        return "/".join(
            filter(None, [endpoint() or "hf:/", f"{self.what}s", self.address.repository, self.address.path])
        )

    def revision(self) -> str:
        """The commit, resolved once; a commit that was given is taken without asking.

        Raises:
            UserError: If there is no such repository or revision, or it may not be read.
        """
        return self._commit

    def files(self) -> Mapping[str, int]:
        """The wanted files and their sizes; see `kfp_finetune.sources.source.Source`."""
        return {file.path: file.size for file in self._files}

    def fetch(self, target: Path, on_bytes: Callable[[int, int], None]) -> tuple[FileEntry, ...]:
        """Downloads the wanted files; see `kfp_finetune.sources.source.Source`."""
        return download(Remote(self.what, self.uri, self._read), self._files, target, on_bytes)

    def splits(self) -> Mapping[str, list[str]]:
        """The patterns of the files of each split that the dataset's configuration declares; often none."""
        return self._listing[1].splits

    @property
    def _place(self) -> dict[str, Any]:
        return {"repo_type": self.what, "revision": self._commit}

    @cached_property
    def _commit(self) -> str:
        revision = self.address.revision
        if COMMIT.fullmatch(revision):
            return revision
        commit = self._ask(
            lambda api: (
                api.repo_info(
                    self.address.repository,
                    repo_type=self.what,
                    revision=revision or None,
                    timeout=retries.STALL_SECONDS,
                ).sha
            )
        )
        if not commit:
            raise refuse(self.what, self.uri, "a Hub that names commits", "Check HF_ENDPOINT.")
        return commit

    @property
    def _files(self) -> tuple[RemoteFile, ...]:
        return self._listing[0]

    @cached_property
    def _listing(self) -> tuple[tuple[RemoteFile, ...], Config]:
        """The wanted files, and the configuration that they are of."""
        from huggingface_hub.hf_api import RepoFile

        repository, path = self.address.repository, self.address.path
        found = self._ask(lambda api: api.get_paths_info(repository, [path], **self._place)) if path else []
        if path and not found:
            raise self._absent()
        if found and isinstance(found[0], RepoFile):
            return self._checked([_remote(found[0], path.rpartition("/")[2])]), Config()
        entries = self._ask(
            lambda api: list(api.list_repo_tree(repository, path or None, recursive=True, **self._place))
        )
        below = len(path) + 1 if path else 0
        listed = [_remote(entry, entry.path[below:]) for entry in entries if isinstance(entry, RepoFile)]
        config = self._config(listed)
        wanted = [file for file in listed if self.patterns.wants(file.path) and config.has(file.path)]
        return self._checked([file for file in wanted if not is_hidden(file.path)]), config

    def _checked(self, files: list[RemoteFile]) -> tuple[RemoteFile, ...]:
        if not files:
            raise self._nothing()
        check_names(self.what, self.uri, [file.path for file in files])
        return tuple(sorted(files, key=lambda file: file.path))

    def _config(self, listed: list[RemoteFile]) -> Config:
        if self.what != "dataset" or self.address.path:
            return Config()
        readme = next((file for file in listed if file.path == "README.md"), None)
        text = self._read_small(readme) if readme else ""
        return choose_config(self.uri, self.config, text, [file.path for file in listed])

    def _read_small(self, file: RemoteFile) -> str:
        stop = min(file.size, CARD_BYTES)
        body = retries.patiently(self.what, self.uri, lambda: b"".join(self._read(file, 0, stop))) if stop else b""
        return body.decode(errors="replace")

    def _read(self, file: RemoteFile, start: int, stop: int) -> Iterator[bytes]:
        if file.xet_hash and not self._xet_failures and is_xet_there():
            try:
                yield from self._xet.read(file, start, stop)
                return
            except Exception as error:
                self._xet_failures.append(error)
                raise retries.Transient(f"Xet failed, so from here by plain HTTP: {retries.plain(error)}") from error
        yield from self._read_by_http(file, start, stop)

    @cached_property
    def _xet(self) -> XetStore:
        return XetStore(endpoint(), self.what, self.address.repository, self._commit, _headers())

    @cached_property
    def _xet_failures(self) -> list[Exception]:
        """Why Xet is not used any more; empty while it is."""
        return []

    def _read_by_http(self, file: RemoteFile, start: int, stop: int) -> Iterator[bytes]:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import hf_raise_for_status

        url = hf_hub_url(self.address.repository, file.address, endpoint=endpoint(), **self._place)
        headers = _headers() | {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        try:
            with session().stream("GET", url, headers=headers) as response:
                hf_raise_for_status(response)
                if response.status_code != 206 and (start, stop) != (0, file.size):
                    raise retries.Transient("the server did not send the part that was asked for")
                yield from response.iter_raw()
        except (retries.Transient, UserError):
            raise
        except Exception as error:
            raise explain(self.what, self.uri, self.address.repository, error) from error

    def _ask(self, call: "Callable[[HfApi], Result]") -> Result:
        from huggingface_hub import HfApi

        session()
        api = HfApi(endpoint=endpoint(), library_name="kfp-finetune", library_version=VERSION)

        def ask() -> Result:
            try:
                return call(api)
            except Exception as error:
                raise explain(self.what, self.uri, self.address.repository, error) from error

        return retries.patiently(self.what, self.uri, ask)

    def _absent(self) -> UserError:
        at = " Write a revision after the repository's name: NAME@REVISION/FOLDER." if "@" in self.address.path else ""
        return refuse(
            self.what,
            f"{self.uri}, where {self.address.repository} at {self._commit[:12]} has no {self.address.path}",
            "a folder or file of the repository",
            f"Look at the repository's files.{at}",
        )

    def _nothing(self) -> UserError:
        return refuse(
            self.what,
            f"{self.uri}, which has no file of the wanted kinds",
            f"a repository with files like {', '.join(self.patterns.allow)}",
            "Name other files with allow_patterns"
            + (", or the Hub's own copy: NAME@refs/convert/parquet." if self.what == "dataset" else "."),
        )


def _headers() -> dict[str, str]:
    from huggingface_hub.utils import build_hf_headers

    return build_hf_headers(library_name="kfp-finetune", library_version=VERSION)


def _remote(entry: "RepoFile", path: str) -> RemoteFile:
    checksum = Checksum("sha256", entry.lfs.sha256) if entry.lfs else Checksum("git", entry.blob_id)
    return RemoteFile(path, entry.size, entry.path, checksum, entry.xet_hash or "")
