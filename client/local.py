"""Runs a compiled pipeline on this machine, the very YAML that is uploaded to a server."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_finetune.client.events import Event, StepFinished, StepStarted
from kfp_finetune.client.parameters import Parameter
from kfp_finetune.errors import Problem, UserError
from kfp_finetune.progress import parse_progress

LAPTOP = {"create_volume": False, "keep_volume": True, "accelerator": ""}
"""What a run without a cluster sets: there is no volume to create, and nothing to ask GPUs of."""

ANSI = re.compile(r"\x1b\[[0-9;]*m")
STARTED = re.compile(r"Executing task '([\w-]+)'")
FINISHED = re.compile(r"Task '([\w-]+)' finished with status (\w+)")
ENDED = re.compile(r"Pipeline '.*' finished with status (\w+)")
REFUSED = re.compile(r"error: \d+ problems? with what was given:")


@dataclass(frozen=True)
class LocalRun:
    """How a local run ended.

    Args:
        succeeded: Whether the pipeline did: every step, or a later attempt at it.
        refusal: The message of the step that refused what it was given; empty for none.
        failed_step: The first step that failed; empty for none.
        last_lines: The last lines that this step printed.
    """

    succeeded: bool
    refusal: str
    failed_step: str
    last_lines: tuple[str, ...]


def laptop_arguments(parameters: Mapping[str, Parameter], values: Mapping[str, Any], workspace: Path) -> dict[str, Any]:
    """A run's arguments with what a laptop needs, unless they were given.

    Args:
        parameters: Of the pipeline.
        values: What the user gave.
        workspace: Directory that stands for the volume.

    Raises:
        UserError: If KFP's local runner would corrupt a value.
    """
    ours = {name: value for name, value in {**LAPTOP, "workspace": str(workspace)}.items() if name in parameters}
    arguments = {**ours, **values}
    problems = [
        Problem(
            name,
            repr(value),
            "a value without the word python3, which KFP's local runner rewrites",
            "Make a link with another name and give that.",
        )
        for name, value in arguments.items()
        if "python3" in json.dumps(value)
    ]
    if problems:
        raise UserError(problems)
    return arguments


def run_local(
    pipeline: Path, arguments: Mapping[str, Any], root: Path, log: Path, on_event: Callable[[Event], None]
) -> LocalRun:
    """Runs a compiled pipeline under KFP's SubprocessRunner, in this environment.

    Args:
        pipeline: The compiled pipeline.yaml.
        arguments: All that the run sets, by name.
        root: Directory for KFP's own artifacts.
        log: File for everything that the steps print.
        on_event: Called as steps begin and end and as long work proceeds.
    """
    command = [sys.executable, "-m", "kfp_finetune.client.local_runner", str(pipeline), str(root)]
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("w", buffering=1) as file,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(dict(arguments)))
        process.stdin.close()
        run = follow(_logged(process.stdout, file), on_event)
    return run if process.returncode == 0 else LocalRun(False, run.refusal, run.failed_step, run.last_lines)


def _logged(lines: Iterable[str], file: Any) -> Iterable[str]:
    for line in lines:
        plain = ANSI.sub("", line)
        file.write(plain)
        yield plain.rstrip("\n")


def follow(lines: Iterable[str], on_event: Callable[[Event], None]) -> LocalRun:
    """Reads what a local run prints and tells its events.

    Args:
        lines: Without colours and line ends.
        on_event: Called with each event.
    """
    refusal: list[str] = []
    failed_step, refusing, ended = "", False, ""
    printed: list[str] = []
    failed_lines: tuple[str, ...] = ()
    for line in lines:
        text = line.removeprefix("    ")
        if REFUSED.match(text) or (refusing and text.startswith("  ")):
            refusing = True
            refusal.append(text)
            continue
        refusing = False
        if progress := parse_progress(line):
            on_event(progress)
        elif match := STARTED.search(line):
            printed = []
            on_event(StepStarted(match.group(1)))
        elif match := FINISHED.search(line):
            succeeded = match.group(2) == "SUCCESS"
            if not succeeded and not failed_step:
                failed_step, failed_lines = match.group(1), tuple(printed[-25:])
            on_event(StepFinished(match.group(1), succeeded))
        elif match := ENDED.search(line):
            ended = match.group(1)
        elif text.strip():
            printed.append(text)
    succeeded = ended == "SUCCESS" if ended else not failed_step
    return LocalRun(succeeded, "\n".join(refusal), failed_step, failed_lines or tuple(printed[-25:]))
