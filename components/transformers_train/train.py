"""Runs a training with transformers, here or on a cluster."""

from pathlib import Path

from kfp_finetune.components.transformers_train.conclusion import conclude
from kfp_finetune.launch.process import Topology
from kfp_finetune.training import train as training
from kfp_finetune.training.plan import Plan
from kfp_finetune.training.summary import Summary
from kfp_finetune.training.train import Worker


def _arguments(plan: Plan, folder: Path) -> list[str]:
    return ["--training", str(folder), "--workspace", str(folder.parents[1])]


WORKER = Worker(
    module="kfp_finetune.components.transformers_train.worker",
    arguments=_arguments,
    node="kfp_finetune.components.transformers_train.node",
    conclude=conclude,
)


def train(plan: Plan, workspace_root: str, topology: Topology | None = None) -> Summary:
    """Trains, goes on with, or recognises as finished what a plan describes; see `training.train.train`."""
    return training.train(plan, WORKER, workspace_root, topology)
