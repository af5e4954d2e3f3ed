"""Runs a pipeline here for a person: checks what was typed, shows how it proceeds, explains what went wrong."""

from functools import partial
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

from kfp_finetune.client.checks.values import check_local
from kfp_finetune.client.events import StepStarted
from kfp_finetune.client.given import read_given, read_values_file
from kfp_finetune.client.local import LocalRun, laptop_arguments, run_local
from kfp_finetune.client.parameters import read_pipeline
from kfp_finetune.client.view import RunView
from kfp_finetune.errors import USER_ERROR_STATUS
from kfp_finetune.workspace import open_workspace

TRAINING_STEPS = frozenset({"torchtune-train", "transformers-train", "run-trial"})


def run_pipeline(
    pipeline: Path, assignments: list[str], workspace: Path, console: Console, file: Path | None = None
) -> str:
    """Runs a compiled pipeline here and shows how it proceeds.

    Args:
        pipeline: The compiled pipeline.yaml.
        assignments: Parameters as `NAME=VALUE`.
        workspace: Absolute path of the directory that stands for the volume.
        console: Where to show it.
        file: A YAML file with parameters too.

    Returns:
        The series that the run belongs to; empty for a pipeline without one.

    Raises:
        UserError: If a parameter or the workspace is wrong.
        typer.Exit: If a step failed: status 2 if it refused what it was given, else 1.
    """
    compiled = read_pipeline(pipeline)
    parameters, check = compiled.parameters, partial(check_local, pipeline=compiled.name)
    values = read_given(parameters, read_values_file(file) if file else {}, assignments, check)
    arguments = laptop_arguments(parameters, values, workspace)
    open_workspace(str(workspace))
    log = workspace / "logs" / "local.log"
    steps: list[str] = []
    with RunView(console) as view:

        def on_event(event: Any) -> None:
            if isinstance(event, StepStarted):
                steps.append(event.step)
            view(event)

        run = run_local(pipeline, arguments, workspace / "kfp", log, on_event)
    if not run.succeeded:
        _explain(run, log, console)
    if "name" in parameters and not TRAINING_STEPS.intersection(steps):
        console.print("Nothing to do: this training is exported already, and the newest of its series.")
    return str(arguments.get("name", parameters["name"].default)) if "name" in parameters else ""


def _explain(run: LocalRun, log: Path, console: Console) -> None:
    if run.refusal:
        console.print(f"[red]{escape(run.refusal)}[/red]", highlight=False)
        raise typer.Exit(USER_ERROR_STATUS)
    console.print(escape("\n".join(run.last_lines)), highlight=False)
    console.print(f"[red]{run.failed_step or 'the run'} failed; everything it printed is in {log}[/red]")
    raise typer.Exit(1)
