"""The command `kfp-finetune`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from kfp_finetune.client.given import read_values_file
from kfp_finetune.client.outcome import show_outcome
from kfp_finetune.client.packages import DEFAULT, find_package
from kfp_finetune.client.run import run_pipeline
from kfp_finetune.client.server.commands import (
    COMMANDS,
    AsJson,
    Assignments,
    CaFile,
    Package,
    TokenFile,
    ValuesFile,
)
from kfp_finetune.client.server.schedule_commands import schedules
from kfp_finetune.client.summary import read_summary
from kfp_finetune.errors import clear_errors
from kfp_finetune.workspace import Workspace

app = typer.Typer(help="Fine-tunes models with Kubeflow Pipelines.", no_args_is_help=True)
console = Console()


@app.callback()
def main() -> None:
    """Fine-tunes models with Kubeflow Pipelines."""


@app.command("compile")
def compile_command(
    registry: Annotated[str | None, typer.Option(envvar="REGISTRY", help="Registry and path of the images.")] = None,
    tag: Annotated[str | None, typer.Option(envvar="TAG", help="Tag of the images.")] = None,
    steps_image: Annotated[str | None, typer.Option(help="Another image for the steps that need no torch.")] = None,
    train_image: Annotated[str | None, typer.Option(help="Another image for the steps that load a model.")] = None,
    max_parallel: Annotated[
        int | None, typer.Option(min=1, max=1000, help="How many trials of a sweep run at once.")
    ] = None,
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
    for path in compile_pipelines(directory, registry, tag, steps_image, train_image, max_parallel):
        console.print(str(path))


@app.command("local")
def local_command(
    pipeline: Package = DEFAULT,
    set_: Annotated[list[str], typer.Option("--set", "-s", help="A parameter: NAME=VALUE.")] = [],  # noqa: B006
    file: Annotated[Path | None, typer.Option("--file", "-f", help="A YAML file of parameters.")] = None,
    workspace: Annotated[Path, typer.Option(help="Directory that stands for the volume.")] = Path("workspace"),
) -> None:
    """Runs a compiled pipeline on this machine, without a cluster."""
    with clear_errors():
        name = run_pipeline(find_package(pipeline), set_, workspace.resolve(), console, file)
    if name:
        try:
            show_outcome(console, read_summary(Workspace(workspace.resolve()), name))
        except FileNotFoundError as error:
            console.print(f"There are no figures to show: {error}")


@app.command("plan")
def plan_command(
    model: Annotated[str, typer.Argument(help="A folder or a name on the Hub; only its config.json is read.")],
    method: Annotated[str, typer.Option(help="full, lora, dora, qlora or qdora.")] = "",
    set_: Assignments = [],  # noqa: B006
    file: ValuesFile = None,
    rows: Annotated[int, typer.Option(min=0, help="Rows to train on, to tell the time of an epoch.")] = 0,
    mean_tokens: Annotated[int, typer.Option(min=0, help="Tokens of a row on average; else max_seq_len.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Tells on which GPUs a training with torchtune would fit, and how long an epoch lasts, before one is asked for."""
    with clear_errors():
        from kfp_finetune.client.plan import Rows, expect, show
        from kfp_finetune.client.plan import as_json as expected_as_json

        assignments = [*([f"method={method}"] if method else []), *set_]
        expected = expect(model, read_values_file(file) if file else {}, assignments, Rows(rows, mean_tokens))
    if as_json:
        print(expected_as_json(expected))
    else:
        show(console, expected)


@app.command("doctor")
def doctor_command(
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Namespace of the runs.")] = "",
    as_: Annotated[str, typer.Option("--as", help="Look as another account: system:serviceaccount:NS:NAME.")] = "",
    runtime: Annotated[str, typer.Option(help="Runtime of the trainings.")] = "torch-distributed",
    secret: Annotated[list[str], typer.Option(help="A Secret that must exist; may be repeated.")] = [],  # noqa: B006
    gpu: Annotated[str | None, typer.Option(help="Resource name of GPUs that a node must have.")] = None,
    host: Annotated[
        str, typer.Option(envvar="KF_PIPELINES_ENDPOINT", help="Address of Kubeflow Pipelines, to look at it too.")
    ] = "",
    token_file: TokenFile = "",
    ca_file: CaFile = "",
    as_json: AsJson = False,
) -> None:
    """Checks whether a cluster is ready for the pipelines; status 1 if it is not, 2 if there is no cluster."""
    from kfp_finetune.client.doctor.examine import Question, examine
    from kfp_finetune.client.doctor.view import report_as_json, show_report
    from kfp_finetune.client.server.connection import Address
    from kfp_finetune.cluster.client import acting_as, connect

    with clear_errors():
        cluster = connect(retries=1)
        cluster = acting_as(cluster, as_) if as_ else cluster
        cluster = replace(cluster, namespace=namespace or cluster.namespace)
        kfp = Address(host, cluster.namespace, token_file, ca_file) if host else None
        report = examine(cluster, Question(runtime, secret, gpu, kfp))
    if as_json:
        print(report_as_json(report))
    else:
        show_report(console, report)
    raise typer.Exit(0 if report.ok else 1)


for command_name, command in COMMANDS.items():
    app.command(command_name)(command)
app.add_typer(schedules, name="schedule")
