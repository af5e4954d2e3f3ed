"""What a recipe's training is made of between two updates of the weights, as tensors by name.

These are the trained weights, the optimizer's state and the random numbers' of one process: its own share of what
several share, so that nothing is gathered. The learning rate follows from the number of updates. Python's and NumPy's
random numbers are left out, since nothing draws from them while a recipe trains.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from kfp_finetune.components.torchtune_train.tensor_files import open_tensors

CPU_RANDOM, GPU_RANDOM = "random.cpu", "random.gpu"


@torch.no_grad()
def state_tensors(recipe: Any) -> dict[str, torch.Tensor]:
    """The trained weights and the optimizer's state in this process, in place: who writes to them changes the training.

    Args:
        recipe: One of torchtune's, set up.
    """
    return dict(_state_tensors(recipe))


def _state_tensors(recipe: Any) -> Iterator[tuple[str, torch.Tensor]]:
    for name, weight in _trained(recipe):
        yield from _parts(f"model.{name}", weight)
        for key, value in recipe._optimizer.state.get(weight, {}).items():
            if isinstance(value, torch.Tensor):
                yield from _parts(f"optimizer.{name}.{key}", value)


def _trained(recipe: Any) -> list[tuple[str, torch.Tensor]]:
    return [(name, weight) for name, weight in recipe._model.named_parameters() if weight.requires_grad]


def _parts(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """A tensor, or what one is made of that is shared out to processes or held in eight bits."""
    if not is_traceable_wrapper_subclass(tensor):
        yield name, tensor.detach()
        return
    for inner in tensor.__tensor_flatten__()[0]:
        part = getattr(tensor, inner)
        if isinstance(part, torch.Tensor):  # and not the processes that share it
            yield from _parts(f"{name}.{inner}", part)


def random_states(device: torch.device) -> dict[str, torch.Tensor]:
    """Where the random numbers of this process are, on the CPU and on its GPU.

    Args:
        device: That it trains on.
    """
    states = {CPU_RANDOM: torch.get_rng_state()}
    return states | ({GPU_RANDOM: torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def restore_random(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Goes on with random numbers where `random_states` found them.

    Args:
        states: What it returned.
        device: That this process trains on.
    """
    torch.set_rng_state(states[CPU_RANDOM])
    if GPU_RANDOM in states:
        torch.cuda.set_rng_state(states[GPU_RANDOM], device)


def restore(recipe: Any, config: Any, path: Path, number: int) -> dict[str, torch.Tensor]:
    """Puts a recipe where it was after an update.

    Args:
        recipe: Set up, at the beginning of the epoch.
        config: With which it was.
        path: This process's file.
        number: Of the update, from 1, counted from the training's beginning.

    Returns:
        The random numbers' states, for `restore_random`.

    Raises:
        ValueError: If the file is of another training.
    """
    if not recipe._optimizer.state:
        _begin_optimizer(recipe)
    with open_tensors(path) as file:
        names = set(file.keys())
        random = {name: file.get_tensor(name) for name in names & {CPU_RANDOM, GPU_RANDOM}}
        _fill(state_tensors(recipe), file, names - random.keys())
    recipe.global_step = number
    recipe._lr_scheduler = recipe._setup_lr_scheduler(
        cfg_lr_scheduler=config.lr_scheduler,
        num_training_steps=recipe.total_epochs * recipe._steps_per_epoch,
        last_epoch=number - 1,
    )
    return random


@torch.no_grad()
def _fill(tensors: dict[str, torch.Tensor], file: Any, names: set[str]) -> None:
    if tensors.keys() != names:
        raise ValueError(f"the step has other tensors than the training: {sorted(tensors.keys() ^ names)[:3]}, ...")
    for name, tensor in tensors.items():
        tensor.copy_(file.get_tensor(name))


def _begin_optimizer(recipe: Any) -> None:
    """Makes the optimizer's state, which appears with its first update; all that this changes is then filled."""
    for _, weight in _trained(recipe):
        weight.grad = torch.zeros_like(weight)
    recipe._optimizer.step()
    recipe._optimizer.zero_grad(set_to_none=True)
