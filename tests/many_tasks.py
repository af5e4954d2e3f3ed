"""Real trainings with transformers' Trainer, many in one launch: a process starts slower than it trains so little."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate.state import AcceleratorState

from kfp_finetune.components.transformers_train.worker import train
from kfp_finetune.launch.process import end_process


class Shares(transformers.TrainerCallback):
    """Notes how many of the model's numbers each process holds."""

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        weights = list(model.parameters())
        here = sum(getattr(weight, "to_local", lambda weight=weight: weight)().numel() for weight in weights)
        shares = {"here": here, "all": sum(weight.numel() for weight in weights)}
        path = Path(args.output_dir).parent / f"shares-{args.process_index}.json"
        path.write_text(json.dumps(shares))


def train_each(trainings: Sequence[Path], procs: int = 2) -> None:
    """Runs the worker of planned trainings, one after another, in the same processes.

    Args:
        trainings: Their directories.
        procs: Number of processes, as each was planned for.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "localhost"]
    command += [f"--nproc-per-node={procs}", __file__, *map(str, trainings)]
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=600, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-8000:]


def main() -> None:
    """Trains what the command line names, all with one group of processes."""
    torch.distributed.init_process_group("gloo")
    torch.distributed.destroy_process_group = lambda *_, **__: None
    transformers.trainer.DEFAULT_CALLBACKS.append(Shares)
    before = dict(os.environ)
    for name in sys.argv[1:]:
        train(Path(name), Path(name).parents[1])
        AcceleratorState._reset_state(reset_partial_state=True)
        os.environ.clear()
        os.environ.update(before)


if __name__ == "__main__":
    main()
    end_process()
