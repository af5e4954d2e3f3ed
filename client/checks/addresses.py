"""The addresses of the models and of the dataset."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kfp_finetune.errors import Problem, UserError
from kfp_finetune.sources.hub_address import is_hub_name
from kfp_finetune.sources.local import LocalSource
from kfp_finetune.sources.patterns import Patterns
from kfp_finetune.sources.redaction import TOKEN, redact
from kfp_finetune.sources.source import open_source
from kfp_finetune.workspace import MOUNT_PATH

SOURCES = ("model", "teacher", "dataset")

_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{30,}")


def check_addresses(values: Mapping[str, Any], same_machine: bool) -> list[Problem]:
    """What is wrong with where models and the dataset are said to be.

    Args:
        values: Those that were given, by name.
        same_machine: Whether it is this one that reads them; what lies here says nothing about a server, where a name
            such as that of a folder is the Hub's.
    """
    problems = []
    for what in SOURCES:
        if uri := str(values.get(what, "")):
            config = values.get("dataset_config", "") if what == "dataset" else ""
            address = f"hf://{uri}" if not same_machine and is_hub_name(uri) else uri
            problems += _check_address(what, address, config, on_volume=not same_machine)
    return problems


def _check_address(what: str, uri: str, config: str, on_volume: bool) -> list[Problem]:
    if _holds_secret(uri):
        allowed = "an address without a user, a password or a token: it is kept and shown with the run"
        mend = "Put them into the Secret that hf_secret or s3_secret names; for a wildcard write * and not ?."
        return [Problem(what, f"{redact(uri)} with a secret in it (not shown)", allowed, mend)]
    try:
        source = open_source(what, uri, Patterns(), config=config)
    except UserError as error:
        return [
            replace(problem, what="dataset_config" if problem.what == "config" else problem.what)
            for problem in error.problems
        ]
    if on_volume and isinstance(source, LocalSource) and not source.root.is_absolute():
        allowed = f"hf://ORGANISATION/NAME, s3://BUCKET/PREFIX, or an absolute path such as {MOUNT_PATH}/data"
        mend = "The steps see nothing of this machine: put the files on the volume, on the Hub or in S3."
        return [Problem(what, f"{redact(repr(uri))}, a relative path and no name on the Hub", allowed, mend)]
    return []


def _holds_secret(uri: str) -> bool:
    plain = TOKEN.sub("", uri)
    return redact(plain) != plain or bool(_HUB_TOKEN.search(uri))
