"""Reads what a user set into a typed dataclass, all of its faults in words at once."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
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


def read_partly(
    kind: type[T], values: Mapping[str, Any], prefix: str = "", needed: str = ""
) -> tuple[T | None, list[Problem]]:
    """Builds settings with defaults in place of what is wrong, so that the rest can be looked at all the same.

    Args:
        kind: A pydantic dataclass.
        values: The user's values by name.
        prefix: What stands before a value's name in a message.
        needed: The value that says what the others mean: if it is wrong, they are not looked at.

    Returns:
        The settings, or None if what is wrong is needed or has no default, and every problem.
    """
    settings, problems = read_settings(kind, values, prefix)
    wrong = {problem.what.removeprefix(prefix).partition(".")[0] for problem in problems}
    if problems and needed not in wrong:
        settings, _ = read_settings(kind, {name: value for name, value in values.items() if name not in wrong}, prefix)
    return settings, problems


def whole_numbers(value: Any) -> Any:
    """A value with its whole numbers as such, in whatever it holds too.

    KFP's own runners hand on every number of an object as a float.

    Args:
        value: Of JSON's kinds.
    """
    if isinstance(value, Mapping):
        return {name: whole_numbers(item) for name, item in value.items()}
    if isinstance(value, list):
        return [whole_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _unknown(name: str, value: Any, known: Sequence[str]) -> Problem:
    return Problem(name, repr(value), f"a setting that there is: {', '.join(known)}", f"Correct {name} and run again.")


def _problem(details: Mapping[str, Any], prefix: str) -> Problem:
    name = prefix + ".".join(str(part) for part in details["loc"])
    allowed = re.sub(r"^(Input should be|Value error,|String should match pattern) ?", "", details["msg"])
    return Problem(name, repr(details["input"]), allowed, f"Correct {name} and run again.")


def unfold_advanced(
    values: Mapping[str, Any], known: Collection[str], own: Collection[str], otherwise: str
) -> tuple[dict[str, Any], list[Problem]]:
    """Takes what is in the parameter `advanced` out of it.

    Args:
        values: The user's values by name; those of `advanced` are settings too.
        known: Settings that belong there.
        own: Settings that have a parameter of their own.
        otherwise: What to do with a name that is neither.

    Returns:
        All values by name, and a problem for each of `advanced` that does not belong there.
    """
    others = {name: value for name, value in values.items() if name != "advanced"}
    advanced = values.get("advanced", {})
    if not isinstance(advanced, Mapping):
        allowed = f"an object with keys of {', '.join(sorted(known))}"
        return others, [Problem("advanced", repr(advanced), allowed, "Correct it.")]
    problems = []
    for name in advanced:
        if name in own:
            mend = f"Set the parameter {name} itself."
            problems.append(Problem(f"advanced.{name}", repr(advanced[name]), "settings without a parameter", mend))
        elif name not in known:
            near = get_close_matches(str(name), known, n=1)
            mend = f"Did you mean {near[0]}?" if near else otherwise
            problems.append(Problem("advanced", repr(name), ", ".join(sorted(known)), mend))
    return {**{name: advanced[name] for name in sorted(known) if name in advanced}, **others}, problems
