"""A user's mistake is one clear message and an exit status of its own; everything else keeps its traceback."""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from kfp_finetune._version import VERSION, VERSION_VARIABLE

USER_ERROR_STATUS = 2
"""Exit status of a step that ended because of what it was given (a crash ends with 1)."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with what a step was given.

    Args:
        what: Name of the parameter, column or file.
        given: What was given, as the user would recognise it.
        allowed: What would be accepted.
        mend: What to do next, as an order.
    """

    what: str
    given: str
    allowed: str
    mend: str

    def __str__(self) -> str:
        wrong = f"{self.what}: given {self.given.strip()}; allowed: {self.allowed}."
        return f"{_one_line(wrong)}\n      {_one_line(self.mend)}"


def _one_line(text: str) -> str:
    return re.sub(r"\s*\n\s*", " ", text.strip())


class UserError(Exception):
    """Something the user gave cannot work; the message says everything that is wrong.

    Args:
        problems: All problems found, at least one.

    Raises:
        ValueError: If there is no problem to report.
    """

    def __init__(self, problems: Sequence[Problem]):
        if not problems:
            raise ValueError("a UserError needs at least one problem")
        self.problems = tuple(problems)
        super().__init__(self._message())

    def _message(self) -> str:
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        return "\n".join([f"{count} with what was given:", *(f"  - {problem}" for problem in self.problems)])


class StepError(Exception):
    """Work that failed for a reason that the message tells whole: a traceback would add nothing."""


def refuse(what: str, given: object, allowed: str, mend: str, kind: type[UserError] = UserError) -> UserError:
    """The error for a single problem; see `Problem` for the other arguments.

    Args:
        what: Of the problem.
        given: Of the problem.
        allowed: Of the problem.
        mend: Of the problem.
        kind: The class of the error.
    """
    return kind([Problem(what, str(given), allowed, mend)])


def refuse_other_version() -> None:
    """Compares the version of this package, and so of the image, with that of the compiled pipeline.

    Raises:
        UserError: If they differ; nothing is compared outside a pipeline.
    """
    compiled = os.environ.get(VERSION_VARIABLE, VERSION)
    if compiled != VERSION:
        raise refuse(
            "image",
            f"one that holds kfp-finetune {VERSION}, in a pipeline that was compiled from {compiled}",
            f"an image of version {compiled}",
            f"Give the run an image that was built from {compiled}, or upload the pipeline of version {VERSION}.",
        )


@contextmanager
def clear_errors() -> Iterator[None]:
    """The frame of every step: a `UserError` is its message on stderr and exit status 2, without a traceback.

    The first such error is an image of another version than the pipeline's. A `StepError` is its message too, with
    exit status 1.

    Raises:
        SystemExit: With status `USER_ERROR_STATUS` if the body raised `UserError`, with 1 if it raised `StepError`.
    """
    try:
        refuse_other_version()
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(USER_ERROR_STATUS) from None
    except StepError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(1) from None
