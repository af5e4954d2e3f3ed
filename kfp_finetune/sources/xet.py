"""The Hub's store of chunks, which large files come from faster than by plain HTTP."""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kfp_finetune.sources.arrival import RemoteFile


def is_xet_there() -> bool:
    """Whether hf_xet is installed and not switched off by HF_HUB_DISABLE_XET."""
    from huggingface_hub import constants

    return not constants.HF_HUB_DISABLE_XET and importlib.util.find_spec("hf_xet") is not None


@dataclass(frozen=True)
class XetStore:
    """The chunks of a repository at a commit.

    Args:
        endpoint: URL of the Hub; None for the usual one.
        what: "dataset" or "model".
        repository: Its name.
        commit: The commit.
        headers: For requests to the Hub, with the token; the store itself gets one of its own.
    """

    endpoint: str | None
    what: str
    repository: str
    commit: str
    headers: dict[str, str]

    def read(self, file: RemoteFile, start: int, stop: int) -> Iterator[bytes]:
        """The bytes of a file from a position to before another.

        Raises:
            Exception: Whatever hf_xet raises when it gives up, which it does after attempts of its own.
        """
        import hf_xet

        left = stop - start
        for chunk in self._group.download_stream(hf_xet.XetFileInfo(file.xet_hash, file.size), start=start, end=stop):
            left -= len(chunk)
            yield chunk
        if left:
            raise EOFError(f"{left:,} bytes did not come")

    @cached_property
    def _session(self) -> Any:
        import hf_xet

        return hf_xet.XetSession()

    @cached_property
    def _group(self) -> Any:
        from huggingface_hub import constants

        place = f"{self.what}s/{self.repository}/xet-read-token/{self.commit}"
        plain = {name: value for name, value in self.headers.items() if name.lower() != "authorization"}
        return self._session.new_download_stream_group(
            token_refresh_url=f"{self.endpoint or constants.ENDPOINT}/api/{place}",
            token_refresh_headers=self.headers,
            custom_headers=plain,
        )
