"""What the API server looks at in a compiled pipeline and in a schedule."""

import re
from typing import Any

import yaml
from google.protobuf import json_format
from servers.kfp.refusals import invalid

from kfp.pipeline_spec import pipeline_spec_pb2

Spec = dict[str, Any]

KINDS: dict[str, tuple[type | tuple[type, ...], str, str]] = {
    "NUMBER_DOUBLE": ((int, float), "double or integer", "parameter value is not of number"),
    "NUMBER_INTEGER": ((int, float), "double or integer", "parameter value is not of number"),
    "STRING": (str, "string", "input parameter is not of string"),
    "BOOLEAN": (bool, "bool", "input parameter is not of bool"),
    "LIST": (list, "list", "input parameter is not of list"),
    "STRUCT": (dict, "struct", "input parameter is not of struct"),
}

CRON_FIELDS = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
"""Seconds come first; the last one, the day of the week, may be left out."""

MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
NAMES = {4: {name: at for at, name in enumerate(MONTHS, 1)}, 5: {name: at for at, name in enumerate(DAYS)}}
DESCRIPTORS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")


def read_pipeline(text: bytes) -> Spec:
    """A compiled pipeline as the API shows it: with its platform's part beside it, if it has one."""
    try:
        documents = [document for document in yaml.load_all(text, yaml.CSafeLoader) if document]
    except yaml.YAMLError as error:
        raise invalid("unknown template format") from error
    if len(documents) not in (1, 2):
        raise invalid("unknown template format")
    return read_inline(
        documents[0] if len(documents) == 1 else {"pipeline_spec": documents[0], "platform_spec": documents[1]}
    )


def read_inline(given: Spec) -> Spec:
    """A pipeline in the form in which the API shows it, which is that of a request for a run too."""
    try:
        json_format.ParseDict(pipeline_of(given), pipeline_spec_pb2.PipelineSpec())
        json_format.ParseDict(given.get("platform_spec", {}), pipeline_spec_pb2.PlatformSpec())
        pipeline_of(given)["pipelineInfo"]["name"]
    except (json_format.ParseError, KeyError, TypeError, AttributeError) as error:
        raise invalid("unknown template format") from error
    return given


def pipeline_of(shown: Spec) -> Spec:
    """The pipeline without its platform's part."""
    return shown.get("pipeline_spec", shown)


def check_parameters(shown: Spec, given: Spec) -> None:
    """Refuses parameters that the pipeline does not take, as the API server does."""
    known = pipeline_of(shown)["root"].get("inputDefinitions", {}).get("parameters", {})
    for name, parameter in sorted(known.items()):
        if name not in given:
            if not parameter.get("isOptional") and "defaultValue" not in parameter:
                raise invalid(
                    f"parameter {name} is not optional, yet has neither default value nor user provided value"
                )
            continue
        kinds, wanted, found = KINDS[parameter["parameterType"]]
        if not isinstance(given[name], kinds) or (isinstance(given[name], bool) and kinds is not bool):
            raise invalid(f"input parameter {name} requires type {wanted}, but the {found} value type")
    unknown = [name for name in given if name not in known]
    if unknown:
        raise invalid(f"parameter(s) provided are not required by pipeline: {', '.join(unknown)}")


def check_trigger(trigger: Spec) -> None:
    """Refuses a schedule that cannot be right."""
    if "cron_schedule" in trigger:
        problem = _find_cron_problem(trigger["cron_schedule"]["cron"])
        if problem:
            formats = "https://godoc.org/github.com/robfig/cron"
            raise invalid(f"Schedule cron is not a supported format({formats}). Error: {problem}")
    elif "periodic_schedule" in trigger:
        interval = int(trigger["periodic_schedule"]["interval_second"])
        if interval < 1:
            raise invalid(f"Found invalid period schedule interval {interval}. Set at interval to least 1 second")
    else:
        raise NotImplementedError(f"a schedule by {sorted(trigger)}")


def _find_cron_problem(text: str) -> str:
    if text.startswith("@"):
        known = text in DESCRIPTORS or re.fullmatch(r"@every (\d+(h|m|s))+", text)
        return "" if known else f"Unrecognized descriptor: {text}"
    fields = text.split()
    if not 5 <= len(fields) <= 6:
        return f"Expected 5 to 6 fields, found {len(fields)}: {text}"
    parts = ((at, part) for at, field in enumerate(fields) for part in field.split(","))
    return next((problem for at, part in parts if (problem := _find_range_problem(part, at))), "")


def _find_range_problem(text: str, at: int) -> str:
    least, most = CRON_FIELDS[at]
    span, slash, step = text.partition("/")
    if slash and not (step.isdigit() and int(step)):
        return f"Step of range should be a positive number: {text}" if step == "0" else _not_a_number(step)
    if span in ("*", "?"):
        return ""
    low, dash, high = span.partition("-")
    numbers = [NAMES.get(at, {}).get(each.lower(), each) for each in ([low, high] if dash else [low])]
    for each in numbers:
        if not str(each).isdigit():
            return _not_a_number(str(each))
    start, stop = int(numbers[0]), int(numbers[-1])
    if start < least:
        return f"Beginning of range ({start}) below minimum ({least}): {text}"
    if stop > most:
        return f"End of range ({stop}) above maximum ({most}): {text}"
    return f"Beginning of range ({start}) beyond end of range ({stop}): {text}" if start > stop else ""


def _not_a_number(text: str) -> str:
    return f'Failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax'
