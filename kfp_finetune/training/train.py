"""Runs a planned training and tells how it went."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kfp_finetune.errors import UserError, refuse
from kfp_finetune.launch.process import NO_SPACE, SMALLER_BATCHES, LaunchError, Topology, run_torchrun
from kfp_finetune.metrics import read_metrics
from kfp_finetune.publishing import locked, write_atomically
from kfp_finetune.reports.training import training_report
from kfp_finetune.training.environment import read_environment
from kfp_finetune.training.epochs import finished_epochs, sweep_unfinished
from kfp_finetune.training.plan import Plan
from kfp_finetune.training.steps import newest_step, sweep_steps
from kfp_finetune.training.summary import REPORT_NAME, Summary, facts, read_summary
from kfp_finetune.workspace import open_workspace


def _nothing(plan: Plan, training: Path) -> None:
    pass


@dataclass(frozen=True)
class Worker:
    """What each process of a training runs.

    Args:
        module: Run by `python -m`.
        arguments: Of its command line, for a plan and the training's folder.
        node: Module that each pod of a training on a cluster runs; see `training.node`.
        conclude: What is made of the training's folder once all epochs are there; more than once does no harm.
    """

    module: str
    arguments: Callable[[Plan, Path], Sequence[str]]
    node: str
    conclude: Callable[[Plan, Path], None] = _nothing


def train(plan: Plan, worker: Worker, workspace_root: str, topology: Topology | None = None) -> Summary:
    """Trains, goes on with, or recognises as finished what a plan describes.

    Args:
        plan: The training.
        worker: What each process runs.
        workspace_root: Absolute path of the mounted volume.
        topology: Which processes run here; None for all of them on this machine. On several nodes this is the first.

    Raises:
        LaunchError: If a process failed; what it said is in the message and in the training's folder.
        UserError: If the volume is full.
    """
    training = open_workspace(workspace_root).root / plan.training
    with locked(training / ".lock", f"train {plan.key}"):
        finished = finished_epochs(training)
        if finished == plan.epochs:
            print(f"training {plan.key} is finished already", flush=True)
            worker.conclude(plan, training)
            return read_summary(training)
        sweep_unfinished(training)
        sweep_steps(training)
        step = newest_step(training)
        where = f"epoch {finished + 1} of {plan.epochs}" + (f", step {step.number + 1}" if step else "")
        print(f"training {plan.key} begins at {where}", flush=True)
        failure = ""
        try:
            launch_workers(plan, worker, training, topology or Topology.one_machine(plan.num_procs_per_node))
        except (LaunchError, UserError) as error:
            failure = str(error)
            raise
        finally:
            _write_report(plan, training, failure)
        worker.conclude(plan, training)
        return read_summary(training)


def launch_workers(plan: Plan, worker: Worker, training: Path, topology: Topology) -> None:
    """Runs this machine's processes of a training and waits for them.

    Args:
        plan: The training.
        worker: What each process runs.
        training: The training's folder.
        topology: Which processes run here.

    Raises:
        LaunchError: If a process failed.
        UserError: If one failed since the volume is full.
    """
    try:
        _run(plan, worker, training, topology)
    except LaunchError as error:
        if NO_SPACE not in str(error):
            raise
        raise refuse(
            "workspace",
            f"{training}, whose volume is full; its whole checkpoints are kept",
            f"room for {plan.epochs} checkpoints of the model",
            "Free space on the volume or enlarge it, then run again: the training goes on.",
        ) from error


def _run(plan: Plan, worker: Worker, training: Path, topology: Topology) -> None:
    """Runs the processes, and again with smaller batches if memory asks for it; on several nodes the TrainJob does."""
    while True:
        try:
            return run_torchrun(worker.module, worker.arguments(plan, training), topology, training / "logs", _echo)
        except LaunchError as error:
            if SMALLER_BATCHES not in str(error) or not topology.is_alone:
                raise
            _echo(SMALLER_BATCHES)


def _echo(line: str) -> None:
    print(line, flush=True)


def _write_report(plan: Plan, training: Path, failure: str) -> None:
    environment = read_environment(training)
    page = training_report(
        title=f"{plan.method} fine-tuning of {plan.base}",
        metrics=read_metrics(training / "metrics.jsonl"),
        facts=[*facts(plan), *(environment.facts() if environment else [])],
        failure=failure,
    )
    write_atomically(training / REPORT_NAME, page)
