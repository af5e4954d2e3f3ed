"""An export as one commit on a branch of a model repository of the Hub.

What holds for who reads there:

- A commit appears whole: the branch is the older model or the newer one. An upload that was killed leaves it as it was.
- Files that the branch has already, with the same digests, are not sent, nor those that came before a kill: the Hub
  keeps them by their digests. If nothing differs there is no commit.
- Weights, adapters and files of an older export that the new one does not have go in the same commit, since loaders
  would prefer some of them, or add them. What else lies there stays.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from re import compile as pattern
from typing import TYPE_CHECKING, Any, TypeVar

from kfp_finetune._version import VERSION
from kfp_finetune.components.export_model.publish.hub_errors import SECRET, explain, is_of_xet, token_of
from kfp_finetune.components.export_model.publish.layout import Layout, Upload
from kfp_finetune.components.export_model.publish.targets import MAIN, WHAT, HubTarget, Published
from kfp_finetune.errors import Problem, StepError, UserError, refuse
from kfp_finetune.manifests import MANIFEST_NAME, Manifest, sha256_of
from kfp_finetune.progress import progress_printer
from kfp_finetune.sources import retries
from kfp_finetune.sources.arrival import RemoteFile
from kfp_finetune.sources.checksums import Checksum
from kfp_finetune.sources.hub_client import endpoint, session
from kfp_finetune.sources.hub_reader import HubReader
from kfp_finetune.sources.xet import is_xet_there

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.hf_api import RepoFile

OTHER_WEIGHTS = pattern(
    r"(model|consolidated)[^/]*\.safetensors(\.index\.json)?|pytorch_model[^/]*\.bin(\.index\.json)?"
    r"|adapter_(model\.(safetensors|bin)|config\.json)|adapter/.*"
)
"""What loaders may take for weights of a repository, or for an adapter to apply to them."""

LARGE_BYTES = 256 * 2**20
"""Larger files are sent one after the other, so that there is progress to tell."""

MANIFEST_BYTES = 2**24
"""Of an older manifest that are read."""

Result = TypeVar("Result")


def publish_to_hub(target: HubTarget, layout: Layout) -> Published:
    """Puts an export onto a branch, or finds it there; a new repository is private.

    Args:
        target: Where.
        layout: What.

    Raises:
        UserError: If the token may not write there, or the Hub cannot be reached.
        StepError: If a file is not as the manifest says.
    """
    branch = _Branch(target, token_of(target))
    commit = retries.patiently(WHAT, target.address, lambda: branch.hold(layout))
    return Published(target.address, branch.page(commit), commit)


def check_hub(target: HubTarget) -> list[Problem]:
    """What keeps an export from being published on the Hub, as far as it can be known without writing.

    Args:
        target: Where.
    """
    try:
        branch = _Branch(target, token_of(target))
        retries.patiently(WHAT, target.address, branch.check_access)
    except UserError as error:
        return list(error.problems)
    return []


@dataclass(frozen=True)
class _Branch:
    """A branch that is written."""

    target: HubTarget
    token: str

    @cached_property
    def api(self) -> "HfApi":
        from huggingface_hub import HfApi

        session()
        return HfApi(endpoint=endpoint(), token=self.token, library_name="kfp-finetune", library_version=VERSION)

    def ask(self, call: Callable[[], Result]) -> Result:
        """Calls the Hub; the caller tries again."""
        session()
        try:
            return call()
        except Exception as error:
            raise explain(self.target, error) from error

    def page(self, commit: str) -> str:
        return f"{self.api.endpoint}/{self.target.repository}/tree/{commit}"

    def hold(self, layout: Layout) -> str:
        """Makes the branch hold an export, and returns the commit at which it does."""
        head = self._open()
        there = self._listing(head)
        changed = [file for file in (*layout.files, layout.manifest) if not _is_same(file, there.get(file.path))]
        stale = sorted(self._stale(head, there, layout))
        if not changed and not stale:
            return head
        commit = self._commit(head, changed, stale, layout)
        self._check_whole(commit, layout)
        return commit

    def check_access(self) -> None:
        """Asks whether the token may write to the repository or, if it is not there, make it.

        Raises:
            UserError: If it certainly may not.
        """
        from huggingface_hub.errors import RepositoryNotFoundError

        name = self.target.repository
        try:
            self.api.auth_check(name, write=True)
        except RepositoryNotFoundError:
            self._check_account(self.ask(lambda: self.api.whoami()))
        except Exception as error:
            raise explain(self.target, error) from error

    def _check_account(self, account: dict[str, Any]) -> None:
        """Of a fine-grained token nothing certain is known before it is used."""
        owner = self.target.repository.partition("/")[0]
        names = [account.get("name", ""), *(each.get("name", "") for each in account.get("orgs", []))]
        if owner.lower() not in [name.lower() for name in names]:
            given = f"{self.target.address}, which is not there, with a token of {names[0]}"
            raise refuse(WHAT, given, f"a repository below {', '.join(names)}", f"Check the name for a typo. {SECRET}")
        if account.get("auth", {}).get("accessToken", {}).get("role") == "read":
            given = f"{self.target.address} with a token of {names[0]} that may only read"
            raise refuse(WHAT, given, "a token that may write", SECRET)

    def _open(self) -> str:
        """The branch's newest commit; repository and branch are made if they are not there."""
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        name, branch = self.target.repository, self.target.branch
        try:
            return self._head()
        except RevisionNotFoundError:
            pass
        except RepositoryNotFoundError:
            self.ask(lambda: self.api.create_repo(name, private=True, exist_ok=True))
        except Exception as error:
            raise explain(self.target, error) from error
        if branch != MAIN:
            self.ask(lambda: self.api.create_branch(name, branch=branch, exist_ok=True))
        return self.ask(self._head)

    def _head(self) -> str:
        info = self.api.repo_info(self.target.repository, revision=self.target.branch, timeout=retries.STALL_SECONDS)
        if not info.sha:
            raise refuse(WHAT, self.target.address, "a Hub that names commits", "Check HF_ENDPOINT.")
        return info.sha

    def _listing(self, commit: str) -> "dict[str, RepoFile]":
        from huggingface_hub.hf_api import RepoFile

        name = self.target.repository
        entries = self.ask(lambda: list(self.api.list_repo_tree(name, recursive=True, revision=commit)))
        return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

    def _stale(self, commit: str, there: "dict[str, RepoFile]", layout: Layout) -> set[str]:
        """Files of the branch that the export does not have, and that would be taken for a part of it."""
        ours = {file.path for file in layout.files}
        older = set(self._older(commit, there.get(MANIFEST_NAME)))
        return {path for path in there if path not in ours and (path in older or OTHER_WEIGHTS.fullmatch(path))}

    def _older(self, commit: str, manifest: "RepoFile | None") -> Iterable[str]:
        """What was published there before, as its manifest says."""
        if manifest is None or not 0 < manifest.size <= MANIFEST_BYTES:
            return ()
        file = RemoteFile(manifest.path, manifest.size, manifest.path, Checksum(), manifest.xet_hash or "")
        reader = HubReader("model", self.target.address, self.target.repository, commit)
        try:
            return [
                entry.path for entry in Manifest.from_json(b"".join(reader.read(file, 0, file.size)).decode()).files
            ]
        except ValueError:
            return ()

    def _commit(self, head: str, changed: list[Upload], stale: list[str], layout: Layout) -> str:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        additions = [
            CommitOperationAdd(file.path, str(file.source) if isinstance(file.source, Path) else file.source)
            for file in changed
        ]
        self._send(additions, changed)
        deletions = [CommitOperationDelete(path, is_folder=False) for path in stale]
        print(f"publishing {len(additions)} files to {self.target.address}, deleting {len(deletions)}", flush=True)
        return self.ask(
            lambda: self.api.create_commit(
                self.target.repository,
                [*additions, *deletions],
                commit_message=f"Export {layout.key}",
                revision=self.target.branch,
                parent_commit=head,
            )
        ).oid

    def _send(self, additions: "list[CommitOperationAdd]", files: list[Upload]) -> None:
        """Sends what does not fit into the commit itself, and checks what was sent."""
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
        done, total = 0, sum(file.size for file in files)
        report = progress_printer("publish to the Hub", total, "byte")
        pairs = list(zip(additions, files, strict=True))
        small = [pair for pair in pairs if pair[1].size <= LARGE_BYTES]
        for group in filter(None, [small, *([pair] for pair in pairs if pair[1].size > LARGE_BYTES)]):
            self._preupload([addition for addition, _ in group])
            for addition, file in group:
                if addition.upload_info.sha256.hex() != file.sha256:
                    raise StepError(f"{file.path} is not what the export's manifest says; export again")
                done += file.size
            report(done)

    def _preupload(self, additions: "list[CommitOperationAdd]") -> None:
        """Sends files to the store of chunks or, where that fails, from then on by plain HTTP."""
        from huggingface_hub import constants

        name, branch = self.target.repository, self.target.branch
        try:
            self.api.preupload_lfs_files(name, additions, revision=branch, free_memory=False)
        except Exception as error:
            if is_xet_there() and is_of_xet(error):
                constants.HF_HUB_DISABLE_XET = True
                raise retries.Transient(f"Xet failed, so from here by plain HTTP: {retries.plain(error)}") from error
            raise explain(self.target, error) from error

    def _check_whole(self, commit: str, layout: Layout) -> None:
        """A repository's own .gitignore, for one, keeps files out of a commit without a word."""
        there = self._listing(commit)
        missing = [file.path for file in (*layout.files, layout.manifest) if not _is_same(file, there.get(file.path))]
        if missing:
            given = f"{self.target.address}, whose commit {commit[:12]} lacks {', '.join(missing[:5])}"
            mend = "See whether a .gitignore there names them, and publish again."
            raise refuse(WHAT, given, "a repository that takes every file", mend)


def _is_same(file: Upload, there: "RepoFile | None") -> bool:
    """Whether the Hub has this very file: by SHA-256 if it is kept apart, else by git's SHA-1."""
    if there is None or there.size != file.size:
        return False
    if there.lfs:
        return there.lfs.sha256 == file.sha256
    if isinstance(file.source, Path):
        return Checksum("git", there.blob_id).is_of(file.source) and sha256_of(file.source) == file.sha256
    digest = Checksum("git").begin(file.size)
    digest.update(file.source)
    return digest.hexdigest() == there.blob_id
