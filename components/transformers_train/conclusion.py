"""What a finished training came to: the figures of the held-out rows, which epoch is the best, and the run's page."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from kfp_finetune.components.transformers_train.tasks.table import TASKS
from kfp_finetune.publishing import write_atomically
from kfp_finetune.training.epochs import choose_epoch, whole_epochs
from kfp_finetune.training.evaluation import EVALUATION_NAME
from kfp_finetune.training.plan import Plan
from kfp_finetune.training.report import run_report
from kfp_finetune.workspace import REPORT_NAME

HELD_OUT_FOLDER = "held_out"
"""Folder of an epoch with what the model makes of the held-out rows, apart from the model's own files."""

FIGURES_NAME = "figures.json"
"""File there with the figures of all of them."""

BEFORE_NAME = "before.json"
"""File of a training with the same of the base."""


@dataclass(frozen=True)
class Evaluation:
    """How the trained model compares with its base on the held-out rows.

    Args:
        loss_before: The base's.
        loss_after: The trained model's.
        figures_before: The task's figures of the base.
        figures_after: The same of the trained model.
        epoch: The epoch that was compared: the newest, or the best of those kept.
        epochs: The figures of each epoch that is there.
        figure: The one of them that says which of two models is better.
    """

    loss_before: float
    loss_after: float
    figures_before: Mapping[str, float]
    figures_after: Mapping[str, float]
    epoch: str
    epochs: Mapping[str, Mapping[str, float]]
    figure: str


def conclude(plan: Plan, training: Path) -> None:
    """Writes the evaluation, the note of the epoch that is to be exported, and the page.

    Args:
        plan: The training, all of whose epochs were trained.
        training: Its folder.
    """
    before = json.loads((training / BEFORE_NAME).read_text())
    folders = list(whole_epochs(training).values())
    epochs = {folder.name: json.loads((folder / HELD_OUT_FOLDER / FIGURES_NAME).read_text()) for folder in folders}
    chosen = _best(plan, epochs) if plan.export_checkpoint == "best" else folders[-1].name
    choose_epoch(training, training / chosen)
    after = epochs[chosen]
    if not after["loss"] < before["loss"]:
        losses = f"{before['loss']:.4g} to {after['loss']:.4g}"
        print(
            f"the loss on the held-out rows did not fall ({losses}); gate keeps such a model from its export",
            flush=True,
        )
    evaluation = Evaluation(
        loss_before=before["loss"],
        loss_after=after["loss"],
        figures_before={name: value for name, value in before.items() if name != "loss"},
        figures_after={name: value for name, value in after.items() if name != "loss"},
        epoch=chosen,
        epochs=epochs,
        figure=TASKS[plan.transformer_type].best,
    )
    found = asdict(evaluation)
    write_atomically(training / EVALUATION_NAME, json.dumps(found, indent=2))
    write_atomically(training / REPORT_NAME, run_report(plan, training, found))


def _best(plan: Plan, epochs: Mapping[str, Mapping[str, float]]) -> str:
    task = TASKS[plan.transformer_type]
    return (max if task.greater_is_better else min)(epochs, key=lambda name: epochs[name][task.best])
