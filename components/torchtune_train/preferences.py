"""torchtune's recipes for pairs of answers: what is peculiar to them, and what of them is mended."""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torchtune.modules.peft import disable_adapter

from kfp_finetune.components.torchtune_train.log_probs import PARTS, answer_log_probs
from kfp_finetune.components.torchtune_train.names import PREFERENCE_LOSSES
from kfp_finetune.components.torchtune_train.output_parts import make_parts_contiguous

Sides = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
"""Of the better and of the worse answers: the logarithms of their probabilities, and what is logged of their logits."""


def learns_preferences(config: Any) -> bool:
    """Whether a configuration is one for pairs of answers.

    Args:
        config: Whole.
    """
    return config.loss._component_ in PREFERENCE_LOSSES.values()


def spare_logits(recipe: Any) -> None:
    """Has a recipe read pairs by `read_sides`, with the logits of all its models in parts.

    Args:
        recipe: For preferences, set up.
    """
    for model in {recipe._model, getattr(recipe, "_ref_model", recipe._model)}:
        model.set_num_output_chunks(PARTS)
        make_parts_contiguous(model)
    recipe.concatenated_forward = partial(read_sides, recipe)


def read_sides(recipe: Any, model: Any, batch: Any, activations_handling: bool = True) -> Sides:
    """What a model makes of a batch of pairs; in the place of the recipes' `concatenated_forward`.

    Those keep four tensors of the logits' size in fp32 and the reference's logits until the next batch. Of logits
    nothing but their means is logged, so these are given instead.

    Args:
        recipe: For preferences.
        model: The one that is trained, or the reference.
        batch: Tokens and labels, each of shape (2 x pairs, tokens), the better answers first.
        activations_handling: Whether activations may be kept elsewhere than on the GPU.
    """
    tokens, labels = (tensor.to(recipe._device) for tensor in batch)
    with recipe.activations_handling_ctx if activations_handling else nullcontext():
        logits = model(tokens)
    chosen, rejected = answer_log_probs(logits, labels).chunk(2)
    with torch.no_grad():
        better, worse = zip(*(part.chunk(2) for part in logits), strict=True)
        return chosen, rejected, _mean(better), _mean(worse)


def _mean(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    total = torch.stack([part.sum(dtype=torch.float32) for part in parts]).sum()
    return total / sum(part.numel() for part in parts)


def loss_of_pairs(recipe: Any, batch: Any) -> torch.Tensor:
    """The loss of a batch of pairs, as the recipes compute it.

    Args:
        recipe: For preferences.
        batch: Of its loader.
    """
    chosen, rejected, *_ = recipe.concatenated_forward(recipe._model, batch)
    reference = getattr(recipe, "_ref_model", recipe._model)
    with torch.no_grad(), disable_adapter(recipe._model) if reference is recipe._model else nullcontext():
        of_chosen, of_rejected, *_ = recipe.concatenated_forward(reference, batch)
    losses, *_ = recipe._loss_fn(chosen, rejected, of_chosen, of_rejected)
    return losses.mean()


def mend_recipe(recipe: Any, most_norm: float | None) -> None:
    """Lets both recipes clip gradients alike and tell their norm, and the one for adapters the mean loss.

    The recipe for adapters neither clips nor reads the setting, and adds the losses of all processes up, where the
    other one averages them.

    Args:
        recipe: Set up.
        most_norm: Largest norm of the gradient; None for no limit.
    """
    has_adapter = not hasattr(recipe, "_ref_model")
    told: dict[str, float] = {}
    if most_norm is not None:
        recipe._clip_grad_norm = None

        def clip(optimizer: Any, *_: Any) -> None:
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            norm = torch.nn.utils.clip_grad_norm_(parameters, most_norm)
            told["grad_norm"] = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)

        recipe._optimizer.register_step_pre_hook(clip)
    if torch.distributed.get_rank() != 0:
        return
    log = recipe._metric_logger.log_dict
    processes = torch.distributed.get_world_size() if has_adapter else 1

    def log_dict(payload: dict[str, Any], step: int) -> None:
        log({**payload, "loss": payload["loss"] / processes, **told}, step)

    recipe._metric_logger.log_dict = log_dict
