"""How the tuned model compares with its base: loss on the same held-out tokens, answers, tasks of the harness."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kfp_finetune.components.evaluate_model.measure import Measured, Work, measure, read_prompts
from kfp_finetune.components.evaluate_model.pairs import FIGURE, Preferences, compare_pairs
from kfp_finetune.publishing import locked, write_atomically
from kfp_finetune.training.epochs import check_finished, choose_epoch, whole_epochs
from kfp_finetune.training.evaluation import EVALUATION_NAME, has_run_tasks, perplexity, read_evaluation
from kfp_finetune.training.plan import Plan
from kfp_finetune.training.report import run_report
from kfp_finetune.workspace import REPORT_NAME, open_workspace

LOCK_NAME = ".evaluation.lock"


@dataclass(frozen=True)
class Evaluation:
    """How the tuned model compares with its base.

    Args:
        loss_before: Mean negative log-likelihood of the held-out answers' tokens under the base, in nats; of pairs of
            answers, the mean loss of a pair as in training.
        loss_after: The same under the tuned model.
        tokens: How many tokens were compared.
        rows: In how many rows.
        epoch: The epoch that was compared: the newest, or the best of those kept.
        epoch_losses: The loss of each epoch that was looked at, by the epoch's name.
        samples: A few prompts, with the expected answer and both models' own.
        benchmarks: By task and figure: `base`, `tuned`, and the standard error of the latter, `stderr`.
        tasks: The settings with which these were measured.
        preference: Of pairs of answers: the loss and its figures, as `Plan.preference` has them.
        figure: What matters most of the figures below.
        figures_before: What else was measured of the base on the held-out rows, by name.
        figures_after: The same of the tuned model.
        epochs: Loss and figures of each epoch that was looked at, by the epoch's name.
    """

    loss_before: float
    loss_after: float
    tokens: int
    rows: int
    epoch: str
    epoch_losses: Mapping[str, float]
    samples: Sequence[dict[str, str]]
    benchmarks: Mapping[str, Mapping[str, Mapping[str, float | None]]] = field(default_factory=dict)
    tasks: Mapping[str, Any] = field(default_factory=dict)
    preference: Mapping[str, Any] = field(default_factory=dict)
    figure: str = ""
    figures_before: Mapping[str, float] = field(default_factory=dict)
    figures_after: Mapping[str, float] = field(default_factory=dict)
    epochs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def figures(self) -> dict[str, float]:
        """The losses, by how much they fell, and what else was measured before and after; those that are numbers."""
        figures = {
            "loss_before": self.loss_before,
            "loss_after": self.loss_after,
            "improvement": self.loss_before - self.loss_after,
            **{f"{name}_before": value for name, value in self.figures_before.items()},
            **{f"{name}_after": value for name, value in self.figures_after.items()},
        }
        if not self.preference:
            figures |= {f"perplexity_{when}": perplexity(figures[f"loss_{when}"]) for when in ("before", "after")}
        return {name: figure for name, figure in figures.items() if math.isfinite(figure)}

    def to_dict(self) -> dict[str, Any]:
        """All of it, with the figures that follow from the rest."""
        return {**self.figures, **asdict(self)}

    def to_json(self) -> str:
        """The same as indented JSON, for `evaluation.json`."""
        return json.dumps(self.to_dict(), indent=2)


def recall_evaluation(training: Path) -> Evaluation | None:
    """The evaluation in a training's folder; None if there is none.

    Args:
        training: The folder.
    """
    known = read_evaluation(training)
    names = Evaluation.__dataclass_fields__
    return Evaluation(**{name: value for name, value in known.items() if name in names}) if known else None


def evaluate(plan: Plan, workspace_root: str, num_procs: int = 0) -> Evaluation:
    """Compares a training's model with its base, or finds that this was done.

    The model is the newest epoch or, if the best is to be exported, the one of those kept with the least loss. Tasks
    that were not run yet are run, without measuring the rest again.

    Args:
        plan: The training.
        workspace_root: Absolute path of the mounted volume.
        num_procs: Processes that share the work; 0 for as many as there are GPUs.

    Raises:
        UserError: If the training is not finished.
        LaunchError: If one of several processes failed.
    """
    root = open_workspace(workspace_root).root
    training = root / plan.training
    with locked(training / LOCK_NAME, f"evaluate {plan.key}"):
        evaluation = recall_evaluation(training)
        if evaluation and has_run_tasks(training, plan.evaluation):
            print(f"training {plan.key} is evaluated already", flush=True)
            return evaluation
        if evaluation is None:
            check_finished(training, plan.key, plan.epochs)
            evaluation = _compare(plan, root, num_procs)
            _write(plan, training, evaluation)
        if plan.evaluation:
            evaluation = _with_benchmarks(plan, root, evaluation, num_procs)
            _write(plan, training, evaluation)
        return evaluation


def _write(plan: Plan, training: Path, evaluation: Evaluation) -> None:
    write_atomically(training / REPORT_NAME, run_report(plan, training, evaluation.to_dict()))
    write_atomically(training / EVALUATION_NAME, evaluation.to_json())


def _compare(plan: Plan, root: Path, num_procs: int) -> Evaluation:
    """Figures and answers of the base and of the epoch that is to be exported."""
    training = root / plan.training
    epochs = list(whole_epochs(training).values())
    compared = epochs if plan.export_checkpoint == "best" else epochs[-1:]
    base, *measured = (_measure_rows(plan, root, model, num_procs) for model in (root / plan.model, *compared))
    before, *judged = (_judge(plan, found, base) for found in (base, *measured))
    best = min(range(len(judged)), key=lambda index: judged[index].loss)
    choose_epoch(training, compared[best])
    samples = [
        {"prompt": prompt["prompt"], "expected": prompt["expected"], "base": theirs, "tuned": ours}
        for prompt, theirs, ours in zip(read_prompts(training), base.answers, measured[best].answers, strict=True)
    ]
    found = Evaluation(
        loss_before=before.loss,
        loss_after=judged[best].loss,
        tokens=plan.held_out["label_tokens"] if plan.preference else base.tokens,
        rows=plan.held_out["rows"],
        epoch=compared[best].name,
        epoch_losses={epoch.name: figures.loss for epoch, figures in zip(compared, judged, strict=True)},
        samples=samples,
    )
    return _with_preferences(found, plan, before, dict(zip(found.epoch_losses, judged, strict=True)))


def _judge(plan: Plan, found: Measured, base: Measured) -> Preferences:
    """The loss of a model, and what else is told of its preferences beside its base's."""
    return compare_pairs(found.pairs, base.pairs, plan.preference) if plan.preference else Preferences(found.loss, {})


def _with_preferences(
    evaluation: Evaluation, plan: Plan, before: Preferences, epochs: Mapping[str, Preferences]
) -> Evaluation:
    if not plan.preference:
        return evaluation
    return replace(
        evaluation,
        preference=plan.preference,
        figure=FIGURE,
        figures_before=before.figures,
        figures_after=epochs[evaluation.epoch].figures,
        epochs={name: {"loss": found.loss, **found.figures} for name, found in epochs.items()},
    )


def _measure_rows(plan: Plan, root: Path, model: Path, num_procs: int) -> Measured:
    return measure(replace(_work(plan, root, model), training=str(root / plan.training)), num_procs)


def _work(plan: Plan, root: Path, model: Path) -> Work:
    """A model to measure; a tuned one with weights rounded as it has learned to have them."""
    base = root / plan.model
    if model == base:
        return Work("evaluate base", str(base), str(base), plan.dtype)
    return Work(f"evaluate {model.name}", str(model), str(base), plan.dtype, rounded_to=plan.quantization_aware)


def _with_benchmarks(plan: Plan, root: Path, evaluation: Evaluation, num_procs: int) -> Evaluation:
    """An evaluation with the figures of both models on the tasks that the plan names."""
    before, after = (
        measure(replace(_work(plan, root, model), tasks=plan.evaluation, root=str(root)), num_procs).tasks
        for model in (root / plan.model, root / plan.training / evaluation.epoch)
    )
    benchmarks = {
        task: {
            name: {"base": before[task][name]["value"], "tuned": found["value"], "stderr": found["stderr"]}
            for name, found in figures.items()
        }
        for task, figures in after.items()
    }
    return replace(evaluation, benchmarks=benchmarks, tasks=plan.evaluation)
