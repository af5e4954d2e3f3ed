"""A training process that saves as often as it can, and is killed once the step appears that `KILL_NAME` names.

Each step is written only when the next update of the weights is made, and training goes on only when it is written: so
what is written must be a copy, and the steps that appear are the same in every run.
"""

import math
import os
import signal
import threading
from collections.abc import Mapping
from concurrent.futures import wait
from pathlib import Path

import torch

from kfp_finetune.components.torchtune_train import steps, worker
from kfp_finetune.launch.process import end_process
from kfp_finetune.training.steps import Step, publish_step

KILL_NAME = "kill_at"
"""File of a training's folder with the number of the step from which on the first process is killed."""


class SavedOften(steps.StepCheckpoints):
    def _agree(self) -> steps.Agreed:
        updated.set()
        if self._work is not None:
            wait([self._work])
        updated.clear()
        return super()._agree()

    def finish(self) -> None:
        updated.set()
        super().finish()


updated = threading.Event()
write = steps._write


def write_late(path: Path, tensors: Mapping[str, torch.Tensor]) -> str:
    updated.wait()
    return write(path, tensors)


def publish_and_die(training: Path, step: Step) -> None:
    publish_step(training, step)
    note = training / KILL_NAME
    if note.exists() and step.number >= int(note.read_text()):
        note.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    steps.StepCheckpoints, steps._write, steps.publish_step = SavedOften, write_late, publish_and_die
    worker.main(share=math.inf)
    end_process()
