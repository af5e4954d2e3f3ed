"""Runs a planned training and tells how it went."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kfp_finetune.components.torchtune_train.epochs import finished_epochs, sweep_unfinished
from kfp_finetune.components.torchtune_train.plan import Plan
from kfp_finetune.components.torchtune_train.result import read_result
from kfp_finetune.errors import refuse
from kfp_finetune.launch.process import LaunchError, run_torchrun
from kfp_finetune.metrics import read_metrics
from kfp_finetune.reports.training import training_report
from kfp_finetune.workspace import locked, open_workspace, write_atomically

REPORT_NAME = "training.html"
WORKER = "kfp_finetune.components.torchtune_train.worker"


@dataclass(frozen=True)
class Summary:
    """A finished training in a few figures.

    Args:
        final_loss: Of the last step.
        best_loss: The lowest of any step.
        steps: Updates of the weights.
        tokens: Tokens read by the last attempt, padding left out.
        tokens_per_second: Of all processes together.
        peak_memory_gib: Of the hungriest process.
        seconds: Of the last attempt's training loop.
        device: Name of the GPU, or "cpu".
    """

    final_loss: float
    best_loss: float
    steps: int
    tokens: int
    tokens_per_second: float
    peak_memory_gib: float
    seconds: float
    device: str


def train(plan: Plan, workspace_root: str) -> Summary:
    """Trains, goes on with, or recognises as finished what a plan describes.

    Args:
        plan: The training.
        workspace_root: Absolute path of the mounted volume.

    Raises:
        LaunchError: If a process failed; what it said is in the message and in the training's folder.
    """
    training = open_workspace(workspace_root).root / plan.training
    with locked(training / ".lock", f"train {plan.key}"):
        finished = finished_epochs(training)
        if finished == plan.epochs:
            print(f"training {plan.key} is finished already", flush=True)
            return _summary(plan, training)
        print(f"training {plan.key} begins at epoch {finished + 1} of {plan.epochs}", flush=True)
        sweep_unfinished(training)
        arguments = ["--method", plan.method, "--config", str(training / "config.yaml")]
        failure = ""
        try:
            run_torchrun(WORKER, arguments, plan.num_procs_per_node, training / "logs", _echo)
        except LaunchError as error:
            failure = str(error)
            if "No space left on device" in failure:
                raise refuse(
                    "workspace",
                    f"{training}, whose volume is full; its whole epochs are kept",
                    f"room for {plan.epochs} checkpoints of the model",
                    "Free space on the volume or enlarge it, then run again: the training goes on.",
                ) from error
            raise
        finally:
            _write_report(plan, training, failure)
        return _summary(plan, training)


def _echo(line: str) -> None:
    print(line, flush=True)


def _write_report(plan: Plan, training: Path, failure: str) -> None:
    page = training_report(
        title=f"{plan.method} fine-tuning of {plan.base}",
        metrics=read_metrics(training / "metrics.jsonl"),
        facts=_facts(plan),
        failure=failure,
    )
    write_atomically(training / REPORT_NAME, page)


def _facts(plan: Plan) -> Sequence[tuple[str, str]]:
    return [
        ("Base model", plan.base),
        ("Dataset", plan.dataset),
        ("Method", plan.method),
        ("Epochs", str(plan.epochs)),
        ("Processes", str(plan.num_procs_per_node)),
        ("Rows to train on", f"{plan.train['rows']:,}"),
        ("Training", plan.key),
    ]


def _summary(plan: Plan, training: Path) -> Summary:
    losses = [row["loss"] for row in read_metrics(training / "metrics.jsonl")]
    result = read_result(training)
    return Summary(
        final_loss=round(losses[-1], 4),
        best_loss=round(min(losses), 4),
        steps=len(losses),
        tokens=result.tokens,
        tokens_per_second=result.tokens_per_second,
        peak_memory_gib=result.peak_memory_gib,
        seconds=result.seconds,
        device=result.device,
    )


def markdown(plan: Plan, summary: Summary) -> str:
    """The summary as KFP shows it."""
    rows = [
        *_facts(plan),
        ("Final loss", f"{summary.final_loss:.4f}"),
        ("Best loss", f"{summary.best_loss:.4f}"),
        ("Steps", f"{summary.steps:,}"),
        ("Tokens", f"{summary.tokens:,}"),
        ("Tokens per second", f"{summary.tokens_per_second:,.0f}"),
        ("Peak memory", f"{summary.peak_memory_gib:.2f} GiB"),
        ("Device", summary.device),
    ]
    lines = [f"| {name} | {value.replace('|', chr(92) + '|')} |" for name, value in rows]
    return "\n".join(["| Training | |", "|---|---|", *lines, ""])
