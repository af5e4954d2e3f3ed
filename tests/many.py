"""Real trainings with torchtune's recipes, many in one launch: a process starts slower than it trains so little."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from kfp_finetune.components.torchtune_train.worker import ready_config, train
from kfp_finetune.launch.process import end_process
from kfp_finetune.training.plan import Plan


def train_each(trainings: Sequence[Path], procs: int) -> Mapping[Path, str]:
    """Runs the recipes of planned trainings, one after another, in the same processes.

    Args:
        trainings: Their directories.
        procs: Number of processes, as each was planned for.

    Returns:
        What each that failed said, by its directory; the others are trained.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={procs}", __file__]
    run = subprocess.run([*command, *map(str, trainings)], capture_output=True, text=True, timeout=600)
    done = {line.removeprefix("trained ") for line in run.stdout.splitlines() if line.startswith("trained ")}
    return {training: run.stderr[-4000:] for training in trainings if str(training) not in done}


def main() -> None:
    """Trains what the command line names, all with one group of processes; one that fails ends the launch."""
    torch.distributed.init_process_group("gloo")
    torch.distributed.init_process_group = torch.distributed.destroy_process_group = lambda *_, **__: None
    for name in sys.argv[1:]:
        training = Path(name)
        plan = Plan.from_json((training / "plan.json").read_text())
        clip = torch.nn.utils.clip_grad_norm_
        train(plan.method, ready_config(training / "config.yaml"))
        torch.nn.utils.clip_grad_norm_ = clip
        print(f"\ntrained {name}", flush=True)


if __name__ == "__main__":
    main()
    end_process()
