"""Tells whether two addresses name the same model, whatever lies there now."""

import os

from kfp_finetune.sources.hub_address import HubAddress
from kfp_finetune.sources.huggingface import HubSource
from kfp_finetune.sources.local import LocalSource
from kfp_finetune.sources.patterns import Patterns
from kfp_finetune.sources.s3 import S3Source
from kfp_finetune.sources.source import open_source

DEFAULT_BRANCH = "main"
"""Of every repository on the Hub; who names it asks for the same as who names none."""


def origin_of(uri: str) -> str:
    """The one address of a model that users write in several ways, without what is found there.

    A branch that moved on, an object or a folder that was written anew is the same model; another revision that the
    user asks for is not.

    Args:
        uri: As the user wrote it; nothing is asked of any server.

    Raises:
        UserError: If the URI is empty or of a kind that is not supported.
    """
    source = open_source("model", uri, Patterns())
    if isinstance(source, HubSource):
        return _hub(source.address)
    if isinstance(source, S3Source):
        return f"s3://{source.address.bucket}/{source.address.key}".rstrip("/")
    return os.path.abspath(source.root) if isinstance(source, LocalSource) else uri


def _hub(address: HubAddress) -> str:
    revision = "" if address.revision in ("", DEFAULT_BRANCH) else f"@{address.revision}"
    path = f"/{address.path}" if address.path else ""
    return f"hf://{address.repository}{revision}{path}"
