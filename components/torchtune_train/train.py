"""Runs a training with torchtune, here or on a cluster."""

from pathlib import Path

from kfp_finetune.launch.process import Topology
from kfp_finetune.training import train as training
from kfp_finetune.training.plan import Plan
from kfp_finetune.training.summary import Summary
from kfp_finetune.training.train import Worker


def _arguments(plan: Plan, folder: Path) -> list[str]:
    minutes = str(plan.checkpoint_minutes)
    return ["--method", plan.method, "--config", str(folder / "config.yaml"), "--checkpoint-minutes", minutes]


WORKER = Worker(
    module="kfp_finetune.components.torchtune_train.worker",
    arguments=_arguments,
    node="kfp_finetune.components.torchtune_train.node",
)


def train(plan: Plan, workspace_root: str, topology: Topology | None = None) -> Summary:
    """Trains, goes on with, or recognises as finished what a plan describes; see `training.train.train`."""
    return training.train(plan, WORKER, workspace_root, topology)
