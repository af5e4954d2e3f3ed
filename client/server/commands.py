"""The commands that need Kubeflow Pipelines on a server."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from kfp_finetune.client.packages import DEFAULT
from kfp_finetune.errors import clear_errors

console = Console()

Host = Annotated[
    str,
    typer.Option(
        envvar="KF_PIPELINES_ENDPOINT",
        help="Address of Kubeflow Pipelines; else the cluster's own, or the kubeconfig's.",
    ),
]
Namespace = Annotated[
    str, typer.Option("--namespace", "-n", help="Namespace of the runs, where there are several users.")
]
TokenFile = Annotated[str, typer.Option(help="File with a bearer token; read anew at each call.")]
CaFile = Annotated[str, typer.Option(help="Certificate of the authority that signed the server's, in PEM format.")]
UiHost = Annotated[
    str, typer.Option(envvar="KF_PIPELINES_UI_ENDPOINT", help="Address of the UI, if --host is the API's.")
]
Package = Annotated[
    str,
    typer.Argument(
        help="A compiled pipeline.yaml, or the name of one of this library: torchtune_finetune, preference_tuning, "
        "distillation, transformers_finetune, sweep."
    ),
]
Assignments = Annotated[list[str], typer.Option("--set", "-s", help="A parameter: NAME=VALUE; may be repeated.")]
ValuesFile = Annotated[Path | None, typer.Option("--file", "-f", help="A YAML file of parameters.")]
Experiment = Annotated[str, typer.Option(help="Groups runs in the UI; empty for the series' name.")]
ServiceAccount = Annotated[str, typer.Option(help="As whom the steps run; empty for the server's default.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunName = Annotated[str, typer.Argument(help="The run's id or name.")]


def upload_command(
    pipeline: Package = DEFAULT,
    host: Host = "",
    namespace: Namespace = "",
    token_file: TokenFile = "",
    ca_file: CaFile = "",
    ui_host: UiHost = "",
    as_json: AsJson = False,
) -> None:
    """Uploads a pipeline: a new one, a new version, or nothing if this content is there."""
    from kfp_finetune.client.packages import find_package
    from kfp_finetune.client.server.uploads import upload

    with clear_errors():
        package = find_package(pipeline)
        server = connect_to(host, namespace, token_file, ca_file, ui_host)
        version = upload(server, package)
    page = server.page(f"/pipelines/details/{version.pipeline_id}/version/{version.version_id}")
    if as_json:
        print(json.dumps({**asdict(version), "page": page}))
        return
    done = "uploaded" if version.created else "is there already"
    console.print(f"{version.pipeline} {version.name} {done}: {page}", highlight=False, soft_wrap=True)


def submit_command(
    pipeline: Package = DEFAULT,
    set_: Assignments = [],  # noqa: B006
    file: ValuesFile = None,
    experiment: Experiment = "",
    run_name: Annotated[str, typer.Option(help="Beginning of the run's name; empty for the experiment's.")] = "",
    service_account: ServiceAccount = "",
    follow: Annotated[bool, typer.Option(help="Follow the run to its end.")] = False,
    host: Host = "",
    namespace: Namespace = "",
    token_file: TokenFile = "",
    ca_file: CaFile = "",
    ui_host: UiHost = "",
    as_json: AsJson = False,
) -> None:
    """Checks the parameters here, uploads the pipeline unless it is there, and starts a run."""
    from kfp_finetune.client.given import read_values_file
    from kfp_finetune.client.server.launching import prepare, start

    with clear_errors():
        prepared = prepare(pipeline, read_values_file(file) if file else {}, set_)
        server = connect_to(host, namespace, token_file, ca_file, ui_host)
        run = start(server, prepared, experiment=experiment, name=run_name, service_account=service_account)
    if as_json:
        print(json.dumps(asdict(run)), flush=True)
    else:
        console.print(f"run {run.run_id} ({run.name}): {run.page}", highlight=False, soft_wrap=True)
    if follow:
        _follow(server, run.run_id, logs=False, as_json=as_json)


def follow_command(
    run: RunName,
    logs: Annotated[bool, typer.Option(help="Show every line that the steps print.")] = False,
    host: Host = "",
    namespace: Namespace = "",
    token_file: TokenFile = "",
    ca_file: CaFile = "",
    ui_host: UiHost = "",
    as_json: AsJson = False,
) -> None:
    """Shows a run's steps, progress and loss to its end; status 1 if it failed."""
    from kfp_finetune.client.server.runs import find_run

    with clear_errors():
        server = connect_to(host, namespace, token_file, ca_file, ui_host)
        run_id = find_run(server, run)
    _follow(server, run_id, logs, as_json)


def stop_command(
    run: RunName,
    host: Host = "",
    namespace: Namespace = "",
    token_file: TokenFile = "",
    ca_file: CaFile = "",
    ui_host: UiHost = "",
    as_json: AsJson = False,
) -> None:
    """Ends a run; its exit task still deletes what the run holds."""
    from kfp_finetune.client.server.runs import find_run, stop

    with clear_errors():
        server = connect_to(host, namespace, token_file, ca_file, ui_host)
        run_id = find_run(server, run)
        stop(server, run_id)
    show({"run_id": run_id, "stopping": True}, f"run {run_id} is being stopped", as_json)


def fetch_command(
    run: RunName,
    to: Annotated[Path | None, typer.Option(help="Directory to write to; results/RUN_ID if none is given.")] = None,
    host: Host = "",
    namespace: Namespace = "",
    token_file: TokenFile = "",
    ca_file: CaFile = "",
    ui_host: UiHost = "",
    as_json: AsJson = False,
) -> None:
    """Writes a run's metrics, report and manifest to a directory."""
    from kfp_finetune.client.server.results import fetch
    from kfp_finetune.client.server.runs import find_run

    with clear_errors():
        server = connect_to(host, namespace, token_file, ca_file, ui_host)
        run_id = find_run(server, run)
        files = [str(path) for path in fetch(server, run_id, to or Path("results") / run_id)]
    show({"files": files}, "\n".join(files), as_json)


def connect_to(host: str, namespace: str, token_file: str, ca_file: str, ui_host: str) -> Any:
    """Connects as the options of a command say; see `connection.Address`.

    Args:
        host: Of the address.
        namespace: Of the address.
        token_file: Of the address.
        ca_file: Of the address.
        ui_host: Of the address.
    """
    from kfp_finetune.client.server.connection import Address, connect

    return connect(Address(host, namespace, token_file, ca_file, ui_host))


def show(answer: Any, text: str, as_json: bool) -> None:
    """Prints an answer for a script or for a person.

    Args:
        answer: JSON values.
        text: The same in words.
        as_json: Whether it is for a script.
    """
    if as_json:
        print(json.dumps(answer))
    else:
        console.print(escape(text), highlight=False, soft_wrap=True)


def _follow(server: Any, run_id: str, logs: bool, as_json: bool) -> None:
    from kfp_finetune.client.server.showing import follow_and_show

    with clear_errors():
        ended = follow_and_show(server, run_id, Console(stderr=as_json), logs)
    if as_json:
        print(json.dumps({"run_id": run_id, **asdict(ended)}))
    raise typer.Exit(0 if ended.succeeded else 1)


COMMANDS: dict[str, Callable[..., None]] = {
    "upload": upload_command,
    "submit": submit_command,
    "follow": follow_command,
    "stop": stop_command,
    "fetch": fetch_command,
}
