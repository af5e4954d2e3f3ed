"""Reads what a user set into a typed dataclass, all of its faults in words at once."""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import ConfigDict, ValidationError

from kfp_finetune.errors import Problem

STRICT = ConfigDict(extra="forbid", strict=True)
"""Of every dataclass of settings: no name that it does not know, no value that only resembles one of the right kind."""

T = TypeVar("T")


def read_settings(
    kind: Callable[..., T], values: Mapping[str, Any], prefix: str = ""
) -> tuple[T | None, list[Problem]]:
    """Builds settings from what a user gave.

    Args:
        kind: A pydantic dataclass.
        values: The user's values by name.
        prefix: What stands before a value's name in a message, such as "trainjob.".

    Returns:
        The settings and no problem, or None and every problem.
    """
    try:
        return kind(**values), []
    except ValidationError as error:
        return None, [_problem(details, prefix) for details in error.errors()]


def _problem(details: Mapping[str, Any], prefix: str) -> Problem:
    name = prefix + ".".join(str(part) for part in details["loc"])
    allowed = re.sub(r"^(Input should be|Value error,|String should match pattern) ?", "", details["msg"])
    return Problem(name, repr(details["input"]), allowed, f"Correct {name} and run again.")
