"""Fine-tuning from a notebook or a script: one call, and a handle to what it started."""

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, TypeAlias

from kfp import client as kfp_client
from rich.console import Console

from kfp_finetune.client.packages import DEFAULT, find_package
from kfp_finetune.client.parameters import read_parameters
from kfp_finetune.client.server import schedules
from kfp_finetune.client.server.connection import Address, Server, connect
from kfp_finetune.client.server.following import Ended
from kfp_finetune.client.server.launching import prepare, start
from kfp_finetune.client.server.results import fetch, read_artifact, read_results
from kfp_finetune.client.server.runs import find_run, get_run, run_page, stop
from kfp_finetune.client.server.showing import follow_and_show
from kfp_finetune.client.server.uploads import upload
from kfp_finetune.errors import refuse
from kfp_finetune.results import REPORT

To: TypeAlias = Server | Address | str | kfp_client.Client | None
"""A server, its address, a kfp.Client with credentials, or None for what kfp.Client finds by itself."""


@dataclass(frozen=True)
class Report:
    """A page about a run, which notebooks show.

    Args:
        html: The whole page, without scripts.
    """

    html: str

    def _repr_html_(self) -> str:
        return f'<iframe sandbox="" width="100%" height="700" srcdoc="{escape(self.html)}"></iframe>'


@dataclass(frozen=True)
class Run:
    """A run on the server.

    Args:
        server: Kubeflow Pipelines.
        run_id: Its id.
    """

    server: Server
    run_id: str

    @property
    def page(self) -> str:
        """Address of its page."""
        return run_page(self.server, self.run_id)

    @property
    def state(self) -> str:
        """KFP's word for its state now: PENDING, RUNNING, SUCCEEDED, FAILED, ..."""
        return str(get_run(self.server, self.run_id).state)

    def follow(self, logs: bool = False) -> Ended:
        """Shows its steps and progress until it ends.

        Args:
            logs: Whether to show every line that the steps print.

        Raises:
            UserError: If it cannot be followed.
        """
        return follow_and_show(self.server, self.run_id, Console(), logs)

    def stop(self) -> None:
        """Ends it; its exit task still deletes what it holds."""
        stop(self.server, self.run_id)

    def metrics(self) -> dict[str, Any]:
        """Its figures so far: losses before and after, tokens, tokens per second, memory.

        Raises:
            UserError: If the server hands out none of its logs.
        """
        return read_results(self.server, self.run_id).metrics

    def report(self) -> Report:
        """The page that compares the model with its base.

        Raises:
            UserError: If there is none yet, or the server does not hand it out.
        """
        address = read_results(self.server, self.run_id).files.get(REPORT)
        if address is None:
            raise refuse("run", f"{self.run_id}, which has no report yet", "a run that evaluated", "Follow it first.")
        return Report(read_artifact(self.server, address).decode())

    def fetch(self, directory: str | Path) -> list[Path]:
        """Writes its metrics, report and manifest.

        Args:
            directory: Where to write; made if it is not there.

        Returns:
            The files.

        Raises:
            UserError: If there is nothing to be had.
        """
        return fetch(self.server, self.run_id, Path(directory))

    def _repr_html_(self) -> str:
        return f'<a href="{escape(self.page)}" target="_blank">run {escape(self.run_id)}</a>'


def finetune(
    model: str,
    dataset: str,
    *,
    method: str = "",
    nodes: int = 1,
    name: str = "finetune",
    to: To = None,
    experiment: str = "",
    service_account: str = "",
    pipeline: str | Path = DEFAULT,
    **parameters: Any,
) -> Run:
    """Checks everything, uploads the pipeline unless it is there, and starts a fine-tuning.

    Args:
        model: hf://ORGANISATION/NAME[@REVISION], s3://BUCKET/PREFIX or a path on the volume.
        dataset: hf://ORGANISATION/NAME[@REVISION][/FOLDER], s3://BUCKET/PREFIX or a path on the volume.
        method: "full", "lora", "dora", "qlora" or "qdora"; empty for the pipeline's default, or where it has no such
            parameter.
        nodes: Machines; with more than one the training is a TrainJob, on a volume that is made ReadWriteMany.
        name: The series.
        to: Where to run; see `To`.
        experiment: Groups runs in the UI; empty for the series' name.
        service_account: As whom the steps run; empty for the server's default.
        pipeline: The name of a pipeline of this library ("torchtune_finetune", "preference_tuning", "distillation",
            "transformers_finetune", "sweep"), or a compiled pipeline.yaml, such as one with your own images.
        parameters: Any other parameter of the pipeline, by name.

    Returns:
        A handle to the run.

    Raises:
        UserError: With everything that is wrong, before anything is sent; or if the server refuses the run.
    """
    prepared = prepare(str(pipeline), _arguments(str(pipeline), model, dataset, method, nodes, name, parameters))
    server = _server(to)
    run = start(server, prepared, experiment=experiment, service_account=service_account)
    return Run(server, run.run_id)


def schedule(
    name: str,
    model: str,
    dataset: str,
    *,
    cron: str = "",
    every_seconds: int = 0,
    method: str = "",
    nodes: int = 1,
    max_concurrency: int = 1,
    enabled: bool | None = None,
    to: To = None,
    experiment: str = "",
    service_account: str = "",
    pipeline: str | Path = DEFAULT,
    **parameters: Any,
) -> schedules.Schedule:
    """Makes a recurring fine-tuning, or replaces the one of this name.

    Args:
        name: Of the schedule, and of the series of its runs.
        model: See `finetune`.
        dataset: See `finetune`.
        cron: When to run: minute, hour, day of the month, month, day of the week, in the server's time zone.
        every_seconds: Seconds between two runs, instead of cron.
        method: See `finetune`.
        nodes: See `finetune`.
        max_concurrency: How many runs may be under way at once.
        enabled: Whether runs begin; None leaves it as it is, and enables a new one.
        to: Where to run; see `To`.
        experiment: Groups runs in the UI; empty for the schedule's name.
        service_account: As whom the steps run; empty for the server's default.
        pipeline: See `finetune`.
        parameters: Any other parameter of the pipeline, such as start_from="latest" or keep_runs=3.

    Returns:
        The schedule.

    Raises:
        UserError: With everything that is wrong, before anything is sent; or if the server refuses it.
    """
    trigger = schedules.read_trigger(cron, every_seconds)
    prepared = prepare(str(pipeline), _arguments(str(pipeline), model, dataset, method, nodes, name, parameters))
    server = _server(to)
    return schedules.set_schedule(
        server,
        name,
        trigger,
        upload(server, prepared.package),
        prepared.arguments_for(server),
        experiment=experiment or name,
        max_concurrency=max_concurrency,
        enabled=enabled,
        service_account=service_account,
    )


def open_run(run: str, to: To = None) -> Run:
    """A handle to a run that was started before.

    Args:
        run: Its id or its name.
        to: Where it runs; see `To`.

    Raises:
        UserError: If there is none.
    """
    server = _server(to)
    return Run(server, find_run(server, run))


def _arguments(
    pipeline: str, model: str, dataset: str, method: str, nodes: int, name: str, parameters: dict[str, Any]
) -> dict[str, Any]:
    arguments: dict[str, Any] = {"model": model, "dataset": dataset, "name": name}
    if method:
        arguments |= {"method": method}
    if nodes != 1:
        machines = "num_workers" if "num_workers" in read_parameters(find_package(pipeline)) else "num_nodes"
        arguments |= {machines: nodes, "launcher": "trainjob", "access_mode": "ReadWriteMany"}
    return arguments | parameters


def _server(to: To) -> Server:
    if isinstance(to, Server):
        return to
    if isinstance(to, kfp_client.Client):
        return connect(client=to)
    return connect(Address(to) if isinstance(to, str) else to)
