"""How many rows are read at once: as many as memory holds, by what one and two of the longest take."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torchtune.utils import batch_to_device

from kfp_finetune.components.torchtune_train.fits import Fit, note_too_large
from kfp_finetune.launch.process import SMALLER_BATCHES
from kfp_finetune.training.noting import memory_bytes, resident_bytes

MARGIN = 0.9
"""Share of the memory that is planned for: allocators lose some of it, and a step has its short peaks."""


class SmallerBatches(Exception):
    """Memory did not hold a batch, and there is a smaller one to start again with."""


Loss = Callable[[Any, Any], torch.Tensor]
"""The loss of a batch, as a recipe computes it: of the recipe and the batch."""


def fit_batch(
    recipe: Any, training: Path, fits: Sequence[Fit], memory: int | None = None, loss: Loss | None = None
) -> Fit:
    """Chooses how many rows a recipe reads at once, and sets it so; every process calls it and chooses the same.

    What one row and two rows of the longest take is measured; more rows take so much more each.

    Args:
        recipe: torchtune's, set up with the first of the fits.
        training: The training's folder.
        fits: To choose from, the fastest first.
        memory: Bytes that this process may take. Default: those of its GPU, or its share of the machine's.
        loss: Of a batch. Default: `loss_of_answers`.

    Returns:
        The choice.

    Raises:
        SmallerBatches: If not even the smallest batch fits unless activations are computed again, by what was measured
            or since memory ran out while it was.
    """
    at_hand = [fit for fit in fits if fit.enable_activation_checkpointing == fits[0].enable_activation_checkpointing]
    chosen = at_hand[0]
    if len(fits) > 1 and not (getattr(recipe, "_compile", False) or getattr(recipe, "_optimizer_in_bwd", False)):
        limit = MARGIN * (memory or _memory(recipe._device))
        with watched(training, at_hand[-1]):
            takes = _measure(recipe, limit, loss or loss_of_answers)
        too_large = _most_of_all(sum(takes(fit.batch_size) > limit for fit in at_hand), recipe._device)
        chosen = at_hand[min(too_large, len(at_hand) - 1)]
        if too_large == len(at_hand) and note_too_large(training, chosen):
            raise SmallerBatches(f"{SMALLER_BATCHES} ({chosen})")
        _say(chosen, takes(chosen.batch_size), limit / MARGIN)
    _set(recipe, chosen)
    return chosen


@contextmanager
def watched(training: Path, fit: Fit) -> Iterator[None]:
    """Notes it if memory does not hold what was chosen, so that the next start chooses less.

    Args:
        training: The training's folder.
        fit: What was chosen.

    Raises:
        SmallerBatches: If there is anything smaller to choose.
    """
    try:
        yield
    except RuntimeError as error:
        is_memory = isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        if is_memory and note_too_large(training, fit):
            raise SmallerBatches(f"{SMALLER_BATCHES} ({fit})") from error
        raise


def _measure(recipe: Any, limit: float, loss: Loss) -> Callable[[int], float]:
    """A function that tells the bytes taken by a batch of a number of rows, as long as the longest ones."""
    rows = recipe._dataloader.dataset
    longest = sorted(range(len(rows)), key=lambda index: rows.lengths[index])[-2:]
    with torch.random.fork_rng(devices=[recipe._device] if recipe._device.type == "cuda" else []):
        _pass(recipe, longest[-1:], loss)  # The gradients stay, as they do while batches are accumulated.
        before = _taken(recipe._device)
        one = _kept(recipe, longest[-1:], loss)
        # All processes make the same passes, for which each hands out its share of the weights.
        is_safe = len(longest) > 1 and not _most_of_all(before + 2 * one > limit, recipe._device)
        two = _kept(recipe, longest, loss) if is_safe else 2 * one
    recipe._optimizer.zero_grad(set_to_none=True)
    state = 0 if recipe._optimizer.state else _state_bytes(recipe._optimizer, recipe._device)
    return lambda size: before + one + (size - 1) * (two - one) + state


def _pass(recipe: Any, rows: Sequence[int], loss: Loss) -> None:
    """A forward and a backward pass, as the recipes make them."""
    loader = recipe._dataloader
    loss(recipe, loader.collate_fn([loader.dataset[row] for row in rows])).backward()


def loss_of_answers(recipe: Any, batch: Any) -> torch.Tensor:
    """The loss of a batch of rows with one answer each; the batch is used up.

    Args:
        recipe: For fine-tuning.
        batch: Of its loader.
    """
    batch_to_device(batch, recipe._device)
    labels = batch.pop("labels")
    with recipe.activations_handling_ctx:
        logits = recipe._model(**batch)
    labels = torch.hstack((labels[..., 1:], torch.full_like(labels[..., :1], recipe._loss_fn.ignore_index)))
    if not isinstance(logits, list):
        labels, logits = labels.reshape(-1), logits.reshape(-1, logits.size(-1))
    return recipe._loss_fn(logits, labels)


def _kept(recipe: Any, rows: Sequence[int], loss: Loss) -> int:
    """The most bytes that a pass takes beside what is there before it; on a CPU, those that it keeps for going back."""
    if recipe._device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        _pass(recipe, rows, loss)
        return torch.cuda.max_memory_allocated() - before
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage() if type(tensor) in (torch.Tensor, torch.nn.Parameter) else None
        if storage is not None:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        _pass(recipe, rows, loss)
    return sum(kept.values())


def _state_bytes(optimizer: Any, device: torch.device) -> int:
    """Bytes of the optimizer's state to come on a device: two numbers for each trained there, as Adam has it."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    shares = [getattr(parameter, "_local_tensor", parameter) for parameter in parameters]
    local = [share for share in shares if share.device.type == device.type]
    in_eight_bits = "8bit" in type(optimizer).__name__.lower()
    return 2 * sum(tensor.numel() * (1 if in_eight_bits else tensor.element_size()) for tensor in local)


def _taken(device: torch.device) -> int:
    return torch.cuda.memory_allocated() if device.type == "cuda" else resident_bytes()


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info()
        return free + torch.cuda.memory_reserved()
    return memory_bytes() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _most_of_all(count: int, device: torch.device) -> int:
    """The largest count of any process."""
    agreed = torch.tensor(count, device=device)
    torch.distributed.all_reduce(agreed, op=torch.distributed.ReduceOp.MAX)
    return int(agreed)


def _set(recipe: Any, fit: Fit) -> None:
    loader = recipe._dataloader
    recipe._gradient_accumulation_steps = fit.gradient_accumulation_steps
    if loader.batch_size != fit.batch_size:
        recipe._dataloader = type(loader)(
            dataset=loader.dataset,
            batch_size=fit.batch_size,
            sampler=loader.sampler,
            collate_fn=loader.collate_fn,
            drop_last=True,
        )


def _say(fit: Fit, takes: float, there: float) -> None:
    if torch.distributed.get_rank() == 0:
        how = f"{fit.batch_size} rows at once, {fit.gradient_accumulation_steps} times an update"
        print(f"batches: {how}; up to {takes / 2**30:.1f} of {there / 2**30:.1f} GiB", flush=True)
