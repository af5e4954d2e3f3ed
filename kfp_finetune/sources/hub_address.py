"""Addresses of the Hugging Face Hub as users write them."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from kfp_finetune.errors import refuse
from kfp_finetune.sources.redaction import redact

SPECIAL_REVISION = re.compile(r"refs/(convert|pr)/[^/]+")
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
ENDING_OF_A_FILE = re.compile(r"\.(jsonl?|csv|parquet|arrow|txt|xml|safetensors|bin|gz|zip)$")


@dataclass(frozen=True)
class HubAddress:
    """A place on the Hub.

    Args:
        repository: "ORGANISATION/NAME", or "NAME" alone for the oldest ones.
        revision: A branch, tag or commit; empty for the default branch.
        path: A folder, a file or a pattern of files in the repository; empty for all of it.
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
