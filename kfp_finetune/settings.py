"""Reads what a user set into a typed dataclass, all of its faults in words at once."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar, cast

from pydantic import ConfigDict, ValidationError

from kfp_finetune.errors import Problem

STRICT = ConfigDict(extra="forbid", strict=True)
"""Of every dataclass of settings: no name that it does not know, no value that only resembles one of the right kind."""

T = TypeVar("T")


def read_settings(kind: type[T], values: Mapping[str, Any], prefix: str = "") -> tuple[T | None, list[Problem]]:
    """Builds settings from what a user gave.

    Args:
        kind: A pydantic dataclass.
        values: The user's values by name.
        prefix: What stands before a value's name in a message, such as "trainjob.".

    Returns:
        The settings and no problem, or None and every problem.
    """
    known = [field.name for field in fields(cast(Any, kind))]
    given = {name: value for name, value in values.items() if name in known}
    unknown = [_unknown(f"{prefix}{name}", value, known) for name, value in values.items() if name not in known]
    try:
        settings = kind(**given)
    except ValidationError as error:
        return None, unknown + [_problem(details, prefix) for details in error.errors()]
    return (None, unknown) if unknown else (settings, [])


def _unknown(name: str, value: Any, known: Sequence[str]) -> Problem:
    return Problem(name, repr(value), f"a setting that there is: {', '.join(known)}", f"Correct {name} and run again.")


def _problem(details: Mapping[str, Any], prefix: str) -> Problem:
    name = prefix + ".".join(str(part) for part in details["loc"])
    allowed = re.sub(r"^(Input should be|Value error,|String should match pattern) ?", "", details["msg"])
    return Problem(name, repr(details["input"]), allowed, f"Correct {name} and run again.")
