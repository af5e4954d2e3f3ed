"""Where an export is to be published, as users write it: read and checked without asking any server."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from kfp_finetune.errors import Problem, UserError
from kfp_finetune.sources.hub_address import parse_address
from kfp_finetune.sources.names import shown
from kfp_finetune.sources.redaction import redact
from kfp_finetune.sources.s3 import parse_s3

WHAT = "publish_to"
"""The parameter, for messages."""

ALLOWED = (
    "hf://ORGANISATION/NAME, hf://ORGANISATION/NAME@BRANCH, s3://BUCKET/PREFIX or registry+http://HOST:PORT/NAME "
    "(or registry+https), several with blanks between"
)
MAIN = "main"
SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.IGNORECASE)
COMMIT = re.compile(r"[0-9a-f]{40}")
BRANCH = re.compile(r"(?!refs/)[A-Za-z0-9_](?:[A-Za-z0-9_-]|[./](?=[A-Za-z0-9_-])){0,99}")
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
HOST = re.compile(
    r"((?=.{1,253}(?::|$))[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})(?:\.[A-Za-z0-9][A-Za-z0-9-]{0,62})*|\[[0-9A-Fa-f:.]{2,45}\])"
    r"(?::(\d{1,5}))?"
)
REGISTERED_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
PORTS = {"http": 80, "https": 443}
PREFIX_PART = re.compile(r"(?!\.{1,2}$)[\w.=+!()'-]{1,255}", re.ASCII)


@dataclass(frozen=True)
class HubTarget:
    """A branch of a model repository on the Hub; both are made if they are not there.

    Args:
        address: As the user wrote it.
        repository: "ORGANISATION/NAME".
        branch: Its name.
    """

    address: str
    repository: str
    branch: str = MAIN


@dataclass(frozen=True)
class S3Target:
    """A place in a bucket that is there.

    Args:
        address: As the user wrote it.
        bucket: Name of the bucket.
        prefix: Without a slash at its ends; empty for the whole bucket.
    """

    address: str
    bucket: str
    prefix: str


@dataclass(frozen=True)
class RegistryTarget:
    """A model in a Kubeflow Model Registry, which is told where the files are and gets none of them.

    Args:
        address: As the user wrote it.
        server: Such as "https://registry.example.com:443".
        name: Of the registered model, which is made if it is not there.
    """

    address: str
    server: str
    name: str

    @property
    def is_secure(self) -> bool:
        """Whether the server is asked over TLS."""
        return self.server.startswith("https://")


Target = HubTarget | S3Target | RegistryTarget


@dataclass(frozen=True)
class Published:
    """An export at a place.

    Args:
        address: The target as the user wrote it.
        url: Where exactly the files are, and stay as they are; of a registry, the version that names their place.
        revision: The commit, or the SHA-256 of the manifest that lies there, or the version's id.
    """

    address: str
    url: str
    revision: str


def parse_targets(publish_to: str) -> tuple[Target, ...]:
    """Reads a list of addresses.

    Args:
        publish_to: Addresses with blanks or commas between them; empty for none.

    Raises:
        UserError: With everything that is wrong with any of them.
    """
    targets, problems = _read(publish_to)
    if problems:
        raise UserError(problems)
    return tuple(targets)


def check_targets(publish_to: str, on_volume: bool = True) -> list[Problem]:
    """Everything that is wrong with a list of addresses; no server is asked.

    Args:
        publish_to: Addresses with blanks or commas between them; empty for none.
        on_volume: Whether the export lies on a volume of a cluster, which a registry can name.
    """
    targets, problems = _read(publish_to)
    registries = [target for target in targets if isinstance(target, RegistryTarget)]
    if registries and not on_volume and len(registries) == len(targets):
        problems.append(nowhere(registries[0]))
    return problems


def nowhere(target: RegistryTarget) -> Problem:
    """What is wrong with a registry alone where the export lies in a folder that others cannot reach.

    Args:
        target: The registry.
    """
    allowed = "a registry beside a place that others can read, or on a cluster the volume's name"
    mend = "Add s3://BUCKET/PREFIX or hf://ORGANISATION/NAME to publish_to; the registry is then told that place."
    return Problem(WHAT, f"{target.address} alone, for an export in a folder of this machine", allowed, mend)


def _read(publish_to: str) -> tuple[list[Target], list[Problem]]:
    targets: dict[tuple[str, ...], Target] = {}
    problems: list[Problem] = []
    for address in filter(None, re.split(r"[\s,]+", publish_to)):
        try:
            target = _parse(address)
        except UserError as error:
            problems += [replace(problem, what=WHAT) for problem in error.problems]
            continue
        place = _place(target)
        if place in targets:
            given = f"{target.address} and {targets[place].address}, which are the same place"
            problems.append(Problem(WHAT, given, "each place once", "Take one of them out."))
        targets[place] = target
    return list(targets.values()), problems


def _place(target: Target) -> tuple[str, ...]:
    if isinstance(target, HubTarget):
        return "hf", target.repository.lower(), target.branch
    if isinstance(target, RegistryTarget):
        return "registry", target.server.lower(), target.name
    return "s3", target.bucket, target.prefix


def _parse(address: str) -> Target:
    if redact(address) != address:
        given = f"{shown(redact(address))} with a password, a token or a signed query in it, which is not shown"
        raise UserError([Problem(WHAT, given, f"{ALLOWED}, without secrets", "Put secrets into the step's Secret.")])
    found = SCHEME.fullmatch(address)
    scheme, rest = (found[1].lower(), found[2]) if found else ("", address)
    if scheme not in READERS:
        raise _refuse(
            address, "which names no kind of place that is known", "Write hf://, s3:// or registry+http:// before it."
        )
    return READERS[scheme](address, rest)


def _parse_hub(address: str, rest: str) -> HubTarget:
    found = parse_address("model", address, rest)
    if "/" not in found.repository:
        raise _refuse(address, "which lacks the organisation or user", "Write ORGANISATION/NAME.")
    if found.path:
        mend = "Leave out what follows the name; a slash in a branch's name is written %2F."
        raise _refuse(address, f"with the path {shown(found.path)}, and a whole repository is published", mend)
    if found.revision and (COMMIT.fullmatch(found.revision) or not BRANCH.fullmatch(found.revision)):
        mend = "Name a branch after the @, which is made if it is not there, or leave it out for main."
        raise _refuse(address, f"where {shown(found.revision)} is no name of a branch", mend)
    return HubTarget(address, found.repository, found.revision or MAIN)


def _parse_s3(address: str, rest: str) -> S3Target:
    found = parse_s3(WHAT, address, rest)
    if not BUCKET.fullmatch(found.bucket) or ".." in found.bucket:
        raise _refuse(address, f"where {shown(found.bucket)} is no name of a bucket", "Name a bucket that is there.")
    prefix = found.key.removesuffix("/")
    if prefix and not all(PREFIX_PART.fullmatch(part) for part in prefix.split("/")):
        mend = "Use letters, digits and .=+!()'_- between single slashes."
        raise _refuse(address, f"where {shown(prefix)} is no prefix that can be read again", mend)
    return S3Target(address, found.bucket, prefix)


def _parse_registry(scheme: str, address: str, rest: str) -> RegistryTarget:
    server, _, name = rest.partition("/")
    found = HOST.fullmatch(server)
    if not found or not 0 < int(found[2] or PORTS[scheme]) < 2**16:
        mend = f"Write it as registry+{scheme}://HOST:PORT/NAME, with the host and port of the registry's REST API."
        raise _refuse(address, f"where {shown(server)} is no host with a port", mend)
    if not REGISTERED_NAME.fullmatch(name):
        why = f"where {shown(name)} is no name of a registered model"
        mend = "After the host write one name alone, of at most 100 letters, digits, '.', '_' and '-'."
        raise _refuse(address, why, mend)
    return RegistryTarget(address, f"{scheme}://{found[1]}:{int(found[2] or PORTS[scheme])}", name)


READERS: Mapping[str, Callable[[str, str], Target]] = {
    "hf": _parse_hub,
    "s3": _parse_s3,
    "registry+http": partial(_parse_registry, "http"),
    "registry+https": partial(_parse_registry, "https"),
}


def _refuse(address: str, why: str, mend: str) -> UserError:
    return UserError([Problem(WHAT, f"{shown(address)}, {why}", ALLOWED, mend)])
