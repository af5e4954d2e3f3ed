"""torchtune's recipes for pairs of answers: what is peculiar to them, and what of them is mended."""

from contextlib import nullcontext
from typing import Any

import torch
from torchtune.modules.peft import disable_adapter

from kfp_finetune.components.torchtune_train.names import PREFERENCE_LOSSES


def learns_preferences(config: Any) -> bool:
    """Whether a configuration is one for pairs of answers.

    Args:
        config: Whole.
    """
    return config.loss._component_ in PREFERENCE_LOSSES.values()


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
