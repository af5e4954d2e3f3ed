"""A compiled pipeline's parameters: what they are, and what a person typed for them."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
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


@dataclass(frozen=True)
class Compiled:
    """A compiled pipeline, as far as who runs it needs to know it.

    Args:
        name: As Kubeflow Pipelines has it.
        parameters: By name.
    """

    name: str
    parameters: Mapping[str, Parameter]


def read_pipeline(pipeline: Path) -> Compiled:
    """Reads what a compiled pipeline is called and what it takes.

    Args:
        pipeline: A compiled pipeline.yaml.

    Raises:
        UserError: If the file is not there or is no compiled pipeline.
    """
    try:
        spec = next(iter(yaml.safe_load_all(pipeline.read_text())))
        inputs = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        parameters = {
            name: Parameter(name, fields["parameterType"], fields.get("description", ""), fields.get("defaultValue"))
            for name, fields in inputs.items()
        }
        return Compiled(spec["pipelineInfo"]["name"], parameters)
    except (OSError, ValueError, yaml.YAMLError, StopIteration, KeyError, TypeError, AttributeError) as error:
        raise refuse(
            "pipeline", str(pipeline), "a compiled pipeline.yaml", "Compile it with ./compile.sh, or check the path."
        ) from error


def read_parameters(pipeline: Path) -> Mapping[str, Parameter]:
    """The parameters of a compiled pipeline, by name; see `read_pipeline`."""
    return read_pipeline(pipeline).parameters


def parse_assignment(parameters: Mapping[str, Parameter], assignment: str) -> Any:
    """The value in a `NAME=VALUE` text, of its parameter's type.

    Args:
        parameters: Of the pipeline.
        assignment: As typed; objects and lists are JSON.

    Raises:
        UserError: If there is no such parameter, or the text is no value of its type.
    """
    name, separator, text = assignment.partition("=")
    if not separator:
        raise refuse("--set", repr(assignment), "NAME=VALUE", "Put a = between them.")
    parameter = _known(parameters, name)
    try:
        return _parse(parameter.type, text)
    except ValueError as error:
        raise _wrong(parameter, repr(text)) from error


def fit_value(parameters: Mapping[str, Parameter], name: str, value: Any) -> Any:
    """A value that came with a type, as its parameter has it.

    Args:
        parameters: Of the pipeline.
        name: The parameter's.
        value: As YAML, Python or NumPy has it. A whole number is a number too, and so is a text that can be read as
            one, since YAML takes 1e-4 for a text.

    Raises:
        UserError: If there is no such parameter, or the value is not of its type.
    """
    parameter = _known(parameters, name)
    try:
        plain = _plain(value)
        if isinstance(plain, (dict, list)):
            plain = json.loads(json.dumps(plain, allow_nan=False, default=_plain))
        if type(plain) in (int, str) and parameter.type == "NUMBER_DOUBLE":
            plain = float(plain)
    except (ArithmeticError, RecursionError, TypeError, ValueError) as error:
        raise _wrong(parameter, repr(value)) from error
    if type(plain) is not TYPES.get(parameter.type, str) or (isinstance(plain, float) and not math.isfinite(plain)):
        raise _wrong(parameter, repr(value))
    return plain


def _plain(value: Any) -> Any:
    """Python's own number or text in place of NumPy's."""
    return value.item() if hasattr(value, "item") else value


def missing_values(parameters: Mapping[str, Parameter], values: Mapping[str, Any]) -> list[Problem]:
    """What must be given and is not.

    Args:
        parameters: Of the pipeline.
        values: Given, by name.
    """
    return [
        Problem(parameter.name, "nothing", "a value", parameter.description)
        for parameter in parameters.values()
        if parameter.required and values.get(parameter.name, "") == ""
    ]


def _known(parameters: Mapping[str, Parameter], name: str) -> Parameter:
    if name not in parameters:
        close = get_close_matches(name, parameters, n=1)
        allowed = "the name of a parameter" if close else ", ".join(parameters)
        mend = f"Did you mean {close[0]}?" if close else "Correct the name."
        raise refuse(name, "a value, but the pipeline has no such parameter", allowed, mend)
    return parameters[name]


def _wrong(parameter: Parameter, given: str) -> UserError:
    return refuse(parameter.name, given, WORDS.get(parameter.type, "text"), parameter.description)


TYPES = {"NUMBER_INTEGER": int, "NUMBER_DOUBLE": float, "BOOLEAN": bool, "STRUCT": dict, "LIST": list}

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
