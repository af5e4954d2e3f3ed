"""Schedules of the learning rate in which no step is made with a rate of 0.

Those of torchtune and transformers begin at 0, so that a training's first step changes nothing, and one of a single
step nothing at all. Here the first step has the first part of the peak, and the last one what is left of it.
"""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def get_cosine_schedule_with_warmup(
    optimizer: Optimizer,
    num_warmup_steps: int,
    num_training_steps: int,
    num_cycles: float = 0.5,
    last_epoch: int = -1,
) -> LambdaLR:
    """The learning rate rises linearly to its peak, then falls like a cosine.

    Args:
        optimizer: Whose learning rate is the peak.
        num_warmup_steps: Steps in which it rises.
        num_training_steps: Steps of the whole training.
        num_cycles: Waves of the cosine; half of one falls to 0.
        last_epoch: Step to go on from; -1 to begin.
    """

    def factor(step: int) -> float:
        fallen = _fallen(step, num_warmup_steps, num_training_steps)
        return _rise(step, num_warmup_steps) * max(0.0, 0.5 * (1 + math.cos(2 * math.pi * num_cycles * fallen)))

    return LambdaLR(optimizer, factor, last_epoch)


def get_linear_schedule_with_warmup(
    optimizer: Optimizer, num_warmup_steps: int, num_training_steps: int, last_epoch: int = -1
) -> LambdaLR:
    """The learning rate rises linearly to its peak, then falls linearly.

    Args:
        optimizer: Whose learning rate is the peak.
        num_warmup_steps: Steps in which it rises.
        num_training_steps: Steps of the whole training.
        last_epoch: Step to go on from; -1 to begin.
    """

    def factor(step: int) -> float:
        return _rise(step, num_warmup_steps) * (1 - _fallen(step, num_warmup_steps, num_training_steps))

    return LambdaLR(optimizer, factor, last_epoch)


def get_constant_schedule_with_warmup(
    optimizer: Optimizer, num_warmup_steps: int, num_training_steps: int, last_epoch: int = -1
) -> LambdaLR:
    """The learning rate rises linearly to its peak and stays there.

    Args:
        optimizer: Whose learning rate is the peak.
        num_warmup_steps: Steps in which it rises.
        num_training_steps: Unused; torchtune's recipes give it to every schedule.
        last_epoch: Step to go on from; -1 to begin.
    """
    return LambdaLR(optimizer, lambda step: _rise(step, num_warmup_steps), last_epoch)


def _rise(step: int, num_warmup_steps: int) -> float:
    return min(1.0, (step + 1) / (num_warmup_steps + 1))


def _fallen(step: int, num_warmup_steps: int, num_training_steps: int) -> float:
    """Share of the steps after the warm-up that is done."""
    return min(1.0, max(0, step - num_warmup_steps) / max(1, num_training_steps - num_warmup_steps))
