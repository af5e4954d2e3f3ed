"""Checkpoints inside an epoch: all processes of a training save the same step, each its own share.

After each update the processes agree, by one message of a few numbers, whether to save: the first process looks at the
clock. Each copies its share to the host's memory and writes it while training goes on. Once all have written, the first
makes the step appear by one rename.
"""

import os
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from kfp_finetune.components.torchtune_train.host_memory import HostCopies
from kfp_finetune.components.torchtune_train.intervals import SHARE, Interval
from kfp_finetune.components.torchtune_train.recipe_state import (
    random_states,
    restore,
    restore_random,
    state_tensors,
)
from kfp_finetune.components.torchtune_train.tensor_files import write_tensors
from kfp_finetune.components.torchtune_train.updates import UpdateLoader
from kfp_finetune.training.steps import (
    Step,
    newest_step,
    publish_step,
    staging_folder,
    step_file,
    step_folder,
    sweep_steps,
)

SAVED = "checkpoint at step"
"""What a line of the log begins with when a step has appeared."""


@dataclass(frozen=True)
class Agreed:
    """What is so on at least one process.

    Args:
        is_due: The first process's clock says that it is time.
        is_busy: A file is being written.
        has_failed: A file could not be written.
        cost: Seconds that the last checkpoint took from training, on the process from which it took the most.
    """

    is_due: bool
    is_busy: bool
    has_failed: bool
    cost: float


class StepCheckpoints:
    """Saves steps of a training, in each of its processes.

    Args:
        recipe: One of torchtune's, set up.
        training: The training's directory.
        interval: When to save.
    """

    def __init__(self, recipe: Any, training: Path, interval: Interval):
        self._recipe = recipe
        self._training = training
        self._interval = interval
        self._rank = torch.distributed.get_rank()
        self._copies = HostCopies()
        self._writer = ThreadPoolExecutor(max_workers=1)
        self._work: Future[tuple[float, str]] | None = None
        self._saving: Step | None = None
        self._own_cost = 0.0
        self._cost = 0.0

    def after_update(self) -> None:
        """Saves the step if it is time, or makes the last one appear once all processes have written it."""
        agreed = self._agree()
        self._cost = agreed.cost
        if agreed.is_busy:
            return
        if self._saving is not None:
            self._conclude(self._saving, agreed.has_failed)
        elif agreed.is_due:
            self._save()

    def finish(self) -> None:
        """Waits for what is being written and leaves no step: all epochs are whole."""
        self._writer.shutdown()
        torch.distributed.barrier()
        if self._rank == 0:
            sweep_steps(self._training)

    def _agree(self) -> Agreed:
        has_failed = self._settle()
        is_due = self._rank == 0 and self._interval.is_due(max(self._cost, self._own_cost))
        mine = [float(is_due), float(self._work is not None), float(has_failed), self._own_cost]
        known = torch.tensor(mine, dtype=torch.float64, device=self._recipe._device)
        torch.distributed.all_reduce(known, op=torch.distributed.ReduceOp.MAX)
        due, busy, failed, cost = known.tolist()
        return Agreed(bool(due), bool(busy), bool(failed), cost)

    def _settle(self) -> bool:
        """Takes note of work that is done.

        Returns:
            Whether it failed.
        """
        if self._work is None or not self._work.done():
            return False
        work, self._work = self._work, None
        try:
            seconds, line = work.result()
        except OSError as error:
            print(f"a checkpoint inside the epoch is left out, the training goes on: {error}", flush=True)
            return True
        if self._recipe._device.type == "cpu":  # Elsewhere training does not wait for the processor that writes.
            self._own_cost += seconds
        if line:
            print(line, flush=True)
        return False

    def _save(self) -> None:
        began = time.perf_counter()
        recipe = self._recipe
        self._saving = Step(recipe.global_step, recipe.epochs_run, torch.distributed.get_world_size())
        tensors = state_tensors(recipe) | random_states(recipe._device)
        fits = self._copies.has_room(tensors, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        path = step_file(staging_folder(self._training, self._saving.number), self._rank)
        self._begin_work(partial(_write, path, self._copies.take(tensors) if fits else tensors))
        if not fits and self._work is not None:
            wait([self._work])
        self._own_cost = time.perf_counter() - began
        self._interval.begin()

    def _conclude(self, step: Step, has_failed: bool) -> None:
        """The first process makes a step appear, or removes it where it is of no use."""
        self._saving = None
        is_whole = not has_failed and step.epoch == self._recipe.epochs_run
        if self._rank == 0:
            self._begin_work(partial(_publish if is_whole else _discard, self._training, step))

    def _begin_work(self, work: Callable[[], str]) -> None:
        self._work = self._writer.submit(_timed, work)


def _write(path: Path, tensors: Mapping[str, torch.Tensor]) -> str:
    path.parent.mkdir(exist_ok=True)
    write_tensors(path, tensors)
    return ""


def _publish(training: Path, step: Step) -> str:
    publish_step(training, step)
    return f"{SAVED} {step.number}"


def _discard(training: Path, step: Step) -> str:
    shutil.rmtree(staging_folder(training, step.number), ignore_errors=True)
    return ""


def _timed(work: Callable[[], str]) -> tuple[float, str]:
    """Does work.

    Returns:
        How long this thread kept a processor from training, and what there is to say, if anything.
    """
    began = time.thread_time()
    line = work()
    return time.thread_time() - began, line


def keep_steps(recipe: Any, config: Any, minutes: float, share: float = SHARE) -> Callable[[], None]:
    """Lets a recipe go on from the newest step, if there is one, and save steps while it trains.

    Args:
        recipe: One of torchtune's, set up at the beginning of an epoch.
        config: With which it was.
        minutes: Between checkpoints; 0 for none.
        share: The most of the time that they may take.

    Returns:
        To be called in every process once the recipe has trained.
    """
    training = Path(config.output_dir)
    if recipe._optimizer is None:
        _say("no checkpoints inside epochs: optimizer_in_bwd leaves no moment between two updates")
        return _nothing
    saver = StepCheckpoints(recipe, training, Interval(minutes, share))
    done, random = _resume(recipe, config, training)
    recipe._dataloader = UpdateLoader(
        recipe._dataloader,
        recipe._gradient_accumulation_steps,
        recipe._steps_per_epoch,
        done,
        partial(restore_random, random, recipe._device) if random else _nothing,
        saver.after_update if minutes else _nothing,
    )
    return saver.finish


def _resume(recipe: Any, config: Any, training: Path) -> tuple[int, dict[str, torch.Tensor]]:
    """Goes on from the newest step.

    Returns:
        The updates of this epoch that are done, and where random numbers go on; 0 and nothing without a step.
    """
    step = _newest_step(training, recipe._device)
    done = step.number - recipe.epochs_run * recipe._steps_per_epoch
    if not step.number:
        return 0, {}
    fits = step.epoch == recipe.epochs_run and 0 < done < recipe._steps_per_epoch
    if not fits or step.processes != torch.distributed.get_world_size():
        _say(f"{step} is of another training and is left out")
        return 0, {}
    path = step_file(step_folder(training, step.number), torch.distributed.get_rank())
    return done, restore(recipe, config, path, step.number)


def _newest_step(training: Path, device: torch.device) -> Step:
    """The step that the first process sees, in all of them; without one, number 0 of no processes."""
    found = newest_step(training) if torch.distributed.get_rank() == 0 else None
    known = torch.tensor(astuple(found or Step(0, 0, 0)), device=device)
    torch.distributed.broadcast(known, src=0)
    return Step(*known.tolist())


def _say(line: str) -> None:
    if torch.distributed.get_rank() == 0:
        print(line, flush=True)


def _nothing() -> None:
    pass
