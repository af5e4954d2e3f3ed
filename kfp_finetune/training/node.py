"""What each pod of a training on a cluster runs."""

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from kfp_finetune.errors import StepError, UserError, clear_errors
from kfp_finetune.launch.process import TERMINATED, Topology
from kfp_finetune.training.epochs import finished_epochs
from kfp_finetune.training.plan import CHECKPOINT_MINUTES, read_plan
from kfp_finetune.training.train import Worker, launch_workers, train
from kfp_finetune.workspace import open_workspace

NODE_RANK = "PET_NODE_RANK"
"""torchrun's variable (`--node-rank`), which Kubeflow Trainer sets in every pod."""

TERMINATION_LOG = Path("/dev/termination-log")
"""Kubernetes takes what a container leaves here into the pod's status, which outlives the pod's log."""

LAST_WORDS_BYTES = 2000


def run_node(
    worker: Worker,
    key: str,
    num_procs: int,
    workspace_root: str,
    rank: int,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
) -> None:
    """Runs this node's processes; the first node holds the training's lock, writes its report and tells its figures.

    Args:
        worker: What each process runs.
        key: The training's.
        num_procs: Processes on this node.
        workspace_root: Absolute path of the mounted volume.
        rank: The node's number.
        checkpoint_minutes: See `Plan`; the plan on the volume may be of a run that said something else.

    Raises:
        LaunchError: If a process failed.
        UserError: If the volume cannot be written, or does not hold the training.
    """
    training = open_workspace(workspace_root).training(key)
    plan = replace(read_plan(training), checkpoint_minutes=checkpoint_minutes)
    topology = Topology.one_node(num_procs, rank)
    if rank == 0:
        print(train(plan, worker, workspace_root, topology).to_line(), flush=True)
    elif finished_epochs(training) < plan.epochs:
        launch_workers(plan, worker, training, topology)


@contextmanager
def leaving_last_words(path: Path = TERMINATION_LOG) -> Iterator[None]:
    """Leaves the end of what the body's failure says where Kubernetes looks for it.

    Args:
        path: That file; where there is none, as outside a container, none is made.
    """
    try:
        yield
    except Exception as error:
        text = str(error) if isinstance(error, UserError | StepError) else traceback.format_exc()
        with suppress(OSError), path.open("r+b") as file:
            file.truncate()
            file.write(text.encode(errors="replace")[-LAST_WORDS_BYTES:])
        raise


def main(worker: Worker) -> None:
    """Reads the command line and runs this node.

    Args:
        worker: What each process runs.
    """
    # The first process of a container is not ended by a signal that it does not handle.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--training", required=True, help="key of the training")
    parser.add_argument("--num-procs", type=int, required=True, help="processes on this node")
    parser.add_argument("--workspace", required=True, help="where the volume is mounted")
    parser.add_argument("--checkpoint-minutes", type=float, default=CHECKPOINT_MINUTES, help="see Plan")
    given = parser.parse_args()
    rank = int(os.environ.get(NODE_RANK, "0"))
    with clear_errors(), leaving_last_words():
        run_node(worker, given.training, given.num_procs, given.workspace, rank, given.checkpoint_minutes)
