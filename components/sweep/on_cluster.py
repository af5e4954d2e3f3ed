"""Trains a trial as a TrainJob; its step has no volume, and so hands on why there is nothing."""

from kfp_finetune.components.sweep.attempt import attempt
from kfp_finetune.components.sweep.sweep import Trial
from kfp_finetune.components.torchtune_train.train import WORKER
from kfp_finetune.training.cluster import Outcome, Request, train_on_cluster
from kfp_finetune.training.summary import parse_summary


def train_trial(trial: Trial, request: Request, run: str) -> tuple[Outcome, str]:
    """Trains and waits, or finds that this was done when the sweep was planned.

    Args:
        trial: The trial.
        request: How it is to run.
        run: Id of the pipeline run.

    Returns:
        What the training's log told, and why it came to nothing; empty if it did not.
    """
    print(trial.title, flush=True)
    if finished := parse_summary(trial.summary):
        return Outcome(finished), ""
    outcome, failure = attempt(lambda: train_on_cluster(trial.plan, WORKER, request, run))
    return outcome or Outcome(None), failure
