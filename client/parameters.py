"""A compiled pipeline's parameters: what they are, and what a person typed for them."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kfp_finetune.errors import Problem, UserError, refuse


@dataclass(frozen=True)
class Parameter:
    """One parameter of a compiled pipeline.

    Args:
        name: As the KFP UI shows it.
        type: KFP's name of the type: STRING, NUMBER_INTEGER, NUMBER_DOUBLE, BOOLEAN, STRUCT or LIST.
        description: What it does.
        default: Its default, or None if it must be given.
    """

    name: str
    type: str
    description: str
    default: Any

    @property
    def required(self) -> bool:
        """Whether a run must give it."""
        return self.default is None


def read_parameters(pipeline: Path) -> dict[str, Parameter]:
    """The parameters of a compiled pipeline, by name.

    Args:
        pipeline: A compiled pipeline.yaml.

    Raises:
        UserError: If the file is not there or is no compiled pipeline.
    """
    try:
        spec = next(iter(yaml.safe_load_all(pipeline.read_text())))
        inputs = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        return {
            name: Parameter(name, fields["parameterType"], fields.get("description", ""), fields.get("defaultValue"))
            for name, fields in inputs.items()
        }
    except (OSError, ValueError, yaml.YAMLError, StopIteration, KeyError, TypeError, AttributeError) as error:
        raise refuse(
            "pipeline", str(pipeline), "a compiled pipeline.yaml", "Compile it with ./compile.sh, or check the path."
        ) from error


def parse_assignments(parameters: Mapping[str, Parameter], assignments: Sequence[str]) -> dict[str, Any]:
    """Turns `name=value` texts into values of the parameters' types.

    Args:
        parameters: Of the pipeline.
        assignments: As typed; objects and lists are JSON.

    Raises:
        UserError: With every unknown name, wrong value and missing parameter.
    """
    problems: list[Problem] = []
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator or name not in parameters:
            known = ", ".join(parameters)
            problems.append(Problem("--set", repr(assignment), f"NAME=VALUE with one of {known}", "Correct the name."))
            continue
        try:
            values[name] = _parse(parameters[name].type, text)
        except ValueError:
            wanted = WORDS.get(parameters[name].type, "text")
            problems.append(Problem(name, repr(text), wanted, parameters[name].description))
    return _complete(parameters, values, problems)


def _complete(parameters: Mapping[str, Parameter], values: dict[str, Any], problems: list[Problem]) -> dict[str, Any]:
    named = {problem.what for problem in problems}
    for parameter in parameters.values():
        if parameter.required and parameter.name not in values and parameter.name not in named:
            problems.append(Problem(parameter.name, "nothing", "a value", parameter.description))
    if problems:
        raise UserError(problems)
    return values


WORDS = {
    "NUMBER_INTEGER": "a whole number",
    "NUMBER_DOUBLE": "a number",
    "BOOLEAN": "true or false",
    "STRUCT": "a JSON object",
    "LIST": "a JSON list",
}


def _parse(type_name: str, text: str) -> Any:
    match type_name:
        case "NUMBER_INTEGER":
            return int(text)
        case "NUMBER_DOUBLE":
            return _parse_number(text)
        case "BOOLEAN":
            return _parse_bool(text)
        case "STRUCT" | "LIST":
            value = json.loads(text)
            if not isinstance(value, dict if type_name == "STRUCT" else list):
                raise ValueError(text)
            return value
        case _:
            return text


def _parse_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _parse_bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"
