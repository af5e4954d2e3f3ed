"""Runs one trial; a trial that fails is a result too, and the others go on."""

from collections.abc import Callable
from dataclasses import dataclass

from kfp_finetune.components.evaluate_model.evaluate import Evaluation, evaluate
from kfp_finetune.components.sweep.attempt import attempt
from kfp_finetune.components.sweep.measured import keep_waiting, note_failure
from kfp_finetune.components.sweep.sweep import Trial, read_sweep
from kfp_finetune.components.torchtune_train.train import train
from kfp_finetune.errors import StepError
from kfp_finetune.workspace import open_workspace


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Args:
        evaluation: How its model did; None if it failed.
        failure: Why there is none; empty if there is.
    """

    evaluation: Evaluation | None
    failure: str = ""


def run_trial(trial: Trial, workspace_root: str) -> Outcome:
    """Trains and evaluates here, or finds that this was done.

    Args:
        trial: The trial.
        workspace_root: Absolute path of the mounted volume.
    """

    def work() -> Evaluation:
        train(trial.plan, workspace_root)
        return evaluate(trial.plan, workspace_root)

    return _noted(trial, workspace_root, work)


def evaluate_trial(trial: Trial, failure: str, workspace_root: str) -> Outcome:
    """Evaluates what was trained elsewhere, or notes why there is nothing.

    Args:
        trial: The trial.
        failure: Why the training came to nothing; empty if it did not.
        workspace_root: Absolute path of the mounted volume.
    """

    def work() -> Evaluation:
        if failure:
            raise StepError(failure)
        return evaluate(trial.plan, workspace_root)

    return _noted(trial, workspace_root, work)


def _noted(trial: Trial, workspace_root: str, work: Callable[[], Evaluation]) -> Outcome:
    workspace = open_workspace(workspace_root)
    sweep = read_sweep(workspace.sweep(trial.sweep))
    print(trial.title, flush=True)
    keep_waiting(workspace, sweep)
    evaluation, failure = attempt(work)
    note_failure(workspace, trial, failure)
    keep_waiting(workspace, sweep)
    if failure:
        print(f"{trial.title} failed; the sweep goes on without it", flush=True)
    return Outcome(evaluation, failure)
