"""The bytes of a repository's files, from the Hub's store of chunks where it has them and else by plain HTTP."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from kfp_finetune._version import VERSION
from kfp_finetune.errors import UserError
from kfp_finetune.sources import retries
from kfp_finetune.sources.arrival import RemoteFile
from kfp_finetune.sources.hub_client import endpoint, session
from kfp_finetune.sources.hub_errors import explain
from kfp_finetune.sources.xet import XetStore, is_xet_there


@dataclass(frozen=True)
class HubReader:
    """Reads the files of a repository at a commit.

    Args:
        what: "dataset" or "model".
        uri: The source as the user wrote it, for messages.
        repository: Its name.
        commit: The commit.
    """

    what: str
    uri: str
    repository: str
    commit: str

    def read(self, file: RemoteFile, start: int, stop: int) -> Iterator[bytes]:
        """The bytes of a file from a position to before another.

        Raises:
            Transient: If another attempt is worth it; after a failure of Xet the next one is by plain HTTP.
            UserError: If a person must act.
        """
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
        return XetStore(endpoint(), self.what, self.repository, self.commit, _headers())

    @cached_property
    def _xet_failures(self) -> list[Exception]:
        """Why Xet is not used any more; empty while it is."""
        return []

    def _read_by_http(self, file: RemoteFile, start: int, stop: int) -> Iterator[bytes]:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import hf_raise_for_status

        url = hf_hub_url(self.repository, file.address, repo_type=self.what, revision=self.commit, endpoint=endpoint())
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
            raise explain(self.what, self.uri, self.repository, error) from error


def _headers() -> dict[str, str]:
    from huggingface_hub.utils import build_hf_headers

    return build_hf_headers(library_name="kfp-finetune", library_version=VERSION)
