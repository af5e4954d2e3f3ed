"""What a volume can be asked to be, checked before anything is created."""

import re
from dataclasses import dataclass
from decimal import Decimal

from kubernetes.utils.quantity import parse_quantity

from kfp_finetune.errors import Problem, UserError

ACCESS_MODES = ("ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod")
"""Access modes under which a step can write to the volume."""

LONGEST_WAIT = 86400
SMALLEST_SIZE = "1Mi"

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_QUANTITY = r"[0-9]{1,15}(\.[0-9]{1,9})?([KMGTPE]i|[kMGTPE])?"


@dataclass(frozen=True)
class VolumeSpec:
    """A volume to create or to find again.

    Args:
        name: Name of the claim.
        size: Smallest size as a Kubernetes quantity, such as "50Gi".
        access_modes: Access modes that the claim must have, such as ("ReadWriteMany",).
        storage_class: Storage class; "" for the cluster's default class.
        wait_seconds: Longest wait for the storage, in seconds.

    """

    name: str
    size: str = "50Gi"
    access_modes: tuple[str, ...] = ("ReadWriteOnce",)
    storage_class: str = ""
    wait_seconds: int = 300


def check_spec(spec: VolumeSpec) -> None:
    """Check every field of a volume's description without a call to the cluster.

    Args:
        spec: The description.

    Raises:
        UserError: With one problem for each field that cannot work.

    """
    problems = [
        *name_problems(spec.name),
        *_size_problems(spec.size),
        *_access_mode_problems(spec.access_modes),
        *_storage_class_problems(spec.storage_class),
        *_wait_problems(spec.wait_seconds),
    ]
    if problems:
        raise UserError(problems)


def name_problems(name: str) -> list[Problem]:
    """Return the problems of a claim's name, none if it can be one."""
    if len(name) <= 63 and re.fullmatch(_LABEL, name):
        return []
    allowed = "at most 63 of a-z, 0-9 and '-', with a letter or digit first and last"
    return [Problem("name", f"{name!r}", allowed, "Rename the volume, for example 'finetune-workspace'.")]


def bytes_of(size: str) -> Decimal:
    """Return the number of bytes of a Kubernetes quantity."""
    return parse_quantity(size)


def _size_problems(size: str) -> list[Problem]:
    if re.fullmatch(_QUANTITY, size) and bytes_of(size) >= bytes_of(SMALLEST_SIZE):
        return []
    allowed = f"a number with a unit (Ki Mi Gi Ti Pi Ei, or k M G T P E), at least {SMALLEST_SIZE}"
    return [Problem("size", f"{size!r}", allowed, "Write the size with its unit, for example '50Gi'.")]


def _access_mode_problems(modes: tuple[str, ...]) -> list[Problem]:
    mend = "Choose ReadWriteOnce for one node, ReadWriteMany for more nodes."
    if not modes or set(modes) - set(ACCESS_MODES):
        return [Problem("access_mode", ", ".join(map(repr, modes)) or "none", ", ".join(ACCESS_MODES), mend)]
    if "ReadWriteOncePod" in modes and len(set(modes)) > 1:
        return [Problem("access_mode", ", ".join(modes), "ReadWriteOncePod together with no other mode", mend)]
    return []


def _storage_class_problems(storage_class: str) -> list[Problem]:
    if not storage_class or (len(storage_class) <= 253 and re.fullmatch(rf"{_LABEL}(\.{_LABEL})*", storage_class)):
        return []
    mend = "Take one from `kubectl get storageclass`, or leave it empty for the cluster's default class."
    return [Problem("storage_class", f"{storage_class!r}", "the name of a storage class, or nothing", mend)]


def _wait_problems(seconds: int) -> list[Problem]:
    if isinstance(seconds, int) and not isinstance(seconds, bool) and 1 <= seconds <= LONGEST_WAIT:
        return []
    allowed = f"whole seconds from 1 to {LONGEST_WAIT}"
    return [Problem("wait_seconds", repr(seconds), allowed, "Give the storage a few minutes, for example 300.")]
