"""Repositories of the Hugging Face Hub, pinned to a commit."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from kfp_finetune._version import VERSION
from kfp_finetune.errors import UserError, refuse
from kfp_finetune.manifests import FileEntry
from kfp_finetune.sources import retries
from kfp_finetune.sources.arrival import RemoteFile
from kfp_finetune.sources.cards import CARD_BYTES
from kfp_finetune.sources.checksums import Checksum
from kfp_finetune.sources.download import Remote, download
from kfp_finetune.sources.hub_address import HubAddress
from kfp_finetune.sources.hub_client import endpoint, session
from kfp_finetune.sources.hub_configs import Config, choose_config
from kfp_finetune.sources.hub_errors import explain
from kfp_finetune.sources.hub_reader import HubReader
from kfp_finetune.sources.names import check_names, is_hidden
from kfp_finetune.sources.patterns import Patterns, matches_glob, no_match, split_pattern
from kfp_finetune.sources.redaction import redact

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile, RepoFolder

COMMIT = re.compile(r"[0-9a-f]{40}")
Result = TypeVar("Result")


@dataclass(frozen=True)
class HubSource:
    """A dataset or model repository, or a folder, a file or the files that a pattern matches in one, at one commit.

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
        return download(Remote(self.what, self.uri, self._reader.read), self._files, target, on_bytes)

    def splits(self) -> Mapping[str, list[str]]:
        """The patterns of the files of each split that the dataset's configuration declares; often none."""
        return self._listing[1].splits

    @property
    def _place(self) -> dict[str, Any]:
        return {"repo_type": self.what, "revision": self._commit}

    @cached_property
    def _reader(self) -> HubReader:
        return HubReader(self.what, self.uri, self.address.repository, self._commit)

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

        path = self.address.path
        folder, pattern = split_pattern(path)
        there = self._look_up([path, folder])
        if isinstance(found := there.get(path), RepoFile):
            return self._checked([_remote(found, path.rpartition("/")[2])]), Config()
        if path in there:
            folder, pattern = path, ""
        if folder and folder not in there:
            raise self._absent(folder)
        listed = self._list(folder)
        if pattern:
            listed = self._matching(listed, pattern)
        config = self._config(listed)
        wanted = [file for file in listed if self.patterns.wants(file.path) and config.has(file.path)]
        return self._checked(wanted), config

    def _look_up(self, paths: list[str]) -> "dict[str, RepoFile | RepoFolder]":
        """What there is of some paths."""
        asked = list(dict.fromkeys(filter(None, paths)))
        if not asked:
            return {}
        found = self._ask(lambda api: api.get_paths_info(self.address.repository, asked, **self._place))
        return {entry.path: entry for entry in found}

    def _list(self, folder: str) -> list[RemoteFile]:
        """The files below a folder but the hidden ones."""
        from huggingface_hub.hf_api import RepoFile

        place = {"recursive": True, **self._place}
        entries = self._ask(lambda api: list(api.list_repo_tree(self.address.repository, folder or None, **place)))
        below = len(folder) + 1 if folder else 0
        files = [_remote(entry, entry.path[below:]) for entry in entries if isinstance(entry, RepoFile)]
        return [file for file in files if not is_hidden(file.path)]

    def _matching(self, listed: list[RemoteFile], pattern: str) -> list[RemoteFile]:
        matching = [file for file in listed if matches_glob(file.path, pattern)]
        if not matching:
            raise no_match(self.what, self.uri, (file.path for file in listed))
        return matching

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
        body = (
            retries.patiently(self.what, self.uri, lambda: b"".join(self._reader.read(file, 0, stop))) if stop else b""
        )
        return body.decode(errors="replace")

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

    def _absent(self, path: str) -> UserError:
        at = " Write a revision after the repository's name: NAME@REVISION/FOLDER." if "@" in self.address.path else ""
        return refuse(
            self.what,
            f"{redact(self.uri)}, where {self.address.repository} at {self._commit[:12]} has no {redact(path)}",
            "a folder or file of the repository",
            f"Look at the repository's files.{at}",
        )

    def _nothing(self) -> UserError:
        return refuse(
            self.what,
            f"{redact(self.uri)}, which has no file of the wanted kinds",
            f"a repository with files like {', '.join(self.patterns.allow)}",
            "Name other files with allow_patterns"
            + (", or the Hub's own copy: NAME@refs/convert/parquet." if self.what == "dataset" else "."),
        )


def _remote(entry: "RepoFile", path: str) -> RemoteFile:
    checksum = Checksum("sha256", entry.lfs.sha256) if entry.lfs else Checksum("git", entry.blob_id)
    return RemoteFile(path, entry.size, entry.path, checksum, entry.xet_hash or "")
