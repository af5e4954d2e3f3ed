"""The command `kfp-finetune`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from kfp_finetune.client.local import LocalRun, laptop_arguments, run_local
from kfp_finetune.client.parameters import parse_assignments, read_parameters
from kfp_finetune.client.view import RunView
from kfp_finetune.errors import USER_ERROR_STATUS, clear_errors

app = typer.Typer(help="Fine-tunes models with Kubeflow Pipelines.", no_args_is_help=True)
console = Console()

PIPELINES = Path(__file__).parent.parent / "pipelines"


@app.callback()
def main() -> None:
    """Fine-tunes models with Kubeflow Pipelines."""


@app.command("compile")
def compile_command(
    registry: Annotated[str | None, typer.Option(help="Registry and path of the images.")] = None,
    tag: Annotated[str | None, typer.Option(help="Tag of the images.")] = None,
    check: Annotated[bool, typer.Option(help="Only compare with what is there; status 1 if it differs.")] = False,
    directory: Annotated[Path, typer.Option(help="Where NAME/pipeline.yaml is written.")] = Path("pipelines"),
) -> None:
    """Compiles every pipeline to DIRECTORY/NAME/pipeline.yaml."""
    from kfp_finetune.client.compile import compile_pipelines, stale_pipelines

    if check:
        stale = stale_pipelines(directory)
        for path in stale:
            console.print(f"[red]{path} is not what its source compiles to; run ./compile.sh[/red]")
        raise typer.Exit(1 if stale else 0)
    for path in compile_pipelines(directory, registry, tag):
        console.print(str(path))


@app.command("local")
def local_command(
    pipeline: Annotated[Path, typer.Argument(help="A compiled pipeline.yaml.")],
    set_: Annotated[list[str], typer.Option("--set", "-s", help="A parameter: NAME=VALUE.")] = [],  # noqa: B006
    workspace: Annotated[Path, typer.Option(help="Directory that stands for the volume.")] = Path("workspace"),
) -> None:
    """Runs a compiled pipeline on this machine, without a cluster."""
    with clear_errors():
        run_pipeline(pipeline, set_, workspace.resolve())


def run_pipeline(pipeline: Path, assignments: list[str], workspace: Path) -> None:
    """Runs a compiled pipeline here and shows how it proceeds.

    Args:
        pipeline: The compiled pipeline.yaml.
        assignments: Parameters as `NAME=VALUE`.
        workspace: Absolute path of the directory that stands for the volume.

    Raises:
        UserError: If a parameter is wrong.
        typer.Exit: If a step failed: status 2 if it refused what it was given, else 1.
    """
    parameters = read_parameters(pipeline)
    values = parse_assignments(parameters, assignments)
    arguments = laptop_arguments(parameters, values, workspace)
    log = workspace / "logs" / "local.log"
    with RunView(console) as view:
        run = run_local(pipeline, arguments, workspace / "kfp", log, view)
    if not run.succeeded:
        _explain(run, log)


def _explain(run: LocalRun, log: Path) -> None:
    if run.refusal:
        console.print(f"[red]{escape(run.refusal)}[/red]", highlight=False)
        raise typer.Exit(USER_ERROR_STATUS)
    console.print(escape("\n".join(run.last_lines)), highlight=False)
    console.print(f"[red]{run.failed_step or 'the run'} failed; everything it printed is in {log}[/red]")
    raise typer.Exit(1)
