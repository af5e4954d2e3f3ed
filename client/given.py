"""The values that a person gives a pipeline: typed, in a file, or both."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from kfp_finetune.client.parameters import Parameter, fit_value, missing_values, parse_assignment
from kfp_finetune.errors import Problem, UserError, refuse

Check = Callable[[Mapping[str, Any]], list[Problem]]


def read_given(
    parameters: Mapping[str, Parameter], values: Mapping[str, Any], assignments: Sequence[str], check: Check
) -> dict[str, Any]:
    """The values of a run's parameters; what is typed goes before the rest.

    Args:
        parameters: Of the pipeline.
        values: By name, as YAML or Python has them.
        assignments: Typed as NAME=VALUE; objects and lists are JSON.
        check: Says what is wrong with values that have their types, as the pipeline's steps would.

    Raises:
        UserError: With everything that is wrong: unknown names, wrong types and values, what is missing.
    """
    readers = {name: partial(fit_value, parameters, name, value) for name, value in values.items()}
    readers |= {text.partition("=")[0]: partial(parse_assignment, parameters, text) for text in assignments}
    problems: list[Problem] = []
    given: dict[str, Any] = {}
    for name, read in readers.items():
        try:
            given[name] = read()
        except UserError as error:
            problems += error.problems
    wrong = {problem.what for problem in problems}
    problems += [problem for problem in missing_values(parameters, given) if problem.what not in wrong]
    problems += [problem for problem in check(given) if problem.what not in wrong]
    if problems:
        raise UserError(problems)
    return given


def read_values_file(file: Path) -> dict[str, Any]:
    """The values in a YAML file, by name.

    Args:
        file: The file.

    Raises:
        UserError: If it cannot be read or holds anything else.
    """
    try:
        values = yaml.safe_load(file.read_text()) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        mend = "Check the path, and write it as NAME: VALUE, one a line."
        raise refuse("--file", f"{file}, which cannot be read ({error})", "a YAML file of values", mend) from error
    if not isinstance(values, dict):
        raise refuse("--file", f"{file}, which holds a {type(values).__name__}", "values by name", "Write NAME: VALUE.")
    return {str(name): value for name, value in values.items()}
