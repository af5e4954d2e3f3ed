"""What was found in a cluster, and what to do about it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from kfp_finetune.cluster.client import ForbiddenError
from kfp_finetune.cluster.trainer import Runtime
from kfp_finetune.errors import UserError

RIGHT = "right"
"""Name of the check of a right that is missing."""


class State(StrEnum):
    """What came of a check."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Args:
        name: What it is.
        state: What came of it.
        found: What was found, in words.
        mend: What to do, as an order; empty if nothing is to be done.
    """

    name: str
    state: State
    found: str
    mend: str = ""


@dataclass(frozen=True)
class StorageClass:
    """A storage class of the cluster.

    Args:
        name: Its name.
        default: Whether it is the one that a claim without a class gets.
        binding: "Immediate" or "WaitForFirstConsumer".
        provisioner: Who makes its volumes.
        access_modes: Those that its volumes are known to have, and whether others are unknown.
    """

    name: str
    default: bool
    binding: str
    provisioner: str
    access_modes: str


@dataclass(frozen=True)
class Report:
    """What was found in a cluster.

    Args:
        checks: Every check, in the order in which one would mend them.
        runtimes: The runtimes that a training can name.
        storage_classes: The storage classes.
        abandoned: Names of the TrainJobs whose waiting step is gone.
    """

    checks: Sequence[Check]
    runtimes: Sequence[Runtime]
    storage_classes: Sequence[StorageClass]
    abandoned: Sequence[str]

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return all(check.state != State.FAIL for check in self.checks)


def judged(name: str, look: Callable[[], str | Check]) -> Check:
    """The check that a look comes to.

    Args:
        name: The check's.
        look: Returns what it found if that is fine, or else a check. A right that it lacks leaves the matter unknown;
            any other `UserError` is a failure.
    """
    try:
        found = look()
    except ForbiddenError as error:
        problem = error.problems[0]
        return Check(name, State.WARN, f"unknown without {problem.what}", problem.mend)
    except UserError as error:
        problem = error.problems[0]
        return Check(name, State.FAIL, f"{problem.given}; allowed: {problem.allowed}", problem.mend)
    return found if isinstance(found, Check) else Check(name, State.PASS, found)
