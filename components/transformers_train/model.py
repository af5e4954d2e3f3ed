"""The model that is trained: the base, with a head for the task and, where asked for, an adapter."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from kfp_finetune.components.transformers_train.lora import add_adapter
from kfp_finetune.components.transformers_train.recipe import Recipe
from kfp_finetune.components.transformers_train.sharding import drop_aliases

NEW_SHARE = 0.5
"""Share of a model's numbers that may be made anew for a task; of more than that, the files hold another model."""


def load_model(recipe: Recipe, base: Path, processor: Any) -> PreTrainedModel:
    """The model that is trained: weights in fp32, since steps as small as fine-tuning's vanish in bf16.

    Frozen weights beside an adapter are in bf16 where that is what training computes in.

    Args:
        recipe: The training.
        base: The base model's directory.
        processor: Its tokenizer or image processor.

    Raises:
        ValueError: If the files hold hardly any of the model's weights.
    """
    settings = recipe.settings
    frozen = settings.lora_config and settings.strategy == "ddp"
    dtype = torch.bfloat16 if frozen and settings.dtype == "bf16" else torch.float32
    model, new = load_base(recipe, base, processor, dtype)
    if settings.strategy == "fsdp":
        drop_aliases(model)
    if not settings.lora_config:
        return model
    adapted = add_adapter(model, settings.lora_config, settings.transformer_type, new)
    for module in adapted.modules():  # whole modules: a norm cannot have weight and bias of different dtypes
        parameters = list(module.parameters(recurse=False))
        for parameter in parameters if any(one.requires_grad for one in parameters) else []:
            parameter.data = parameter.data.float()
    return adapted


def load_base(recipe: Recipe, base: Path, processor: Any, dtype: torch.dtype) -> tuple[PreTrainedModel, Sequence[str]]:
    """Loads the base for a task; weights that its files do not have, such as a new head's, are drawn at random.

    Args:
        recipe: The training.
        base: The base model's directory.
        processor: Its tokenizer or image processor.
        dtype: Of the weights.

    Returns:
        The model, and the names of its new weights.

    Raises:
        ValueError: If the files hold hardly any of the model's weights.
    """
    labels = recipe.labels.config() if recipe.labels else {}
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    config = transformers.AutoConfig.from_pretrained(base, **labels, **options)
    if getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = getattr(processor, "pad_token_id", None)
    model, loaded = getattr(transformers, recipe.settings.transformer_type).from_pretrained(
        base,
        config=config,
        dtype=dtype,
        use_safetensors=True,
        ignore_mismatched_sizes=bool(labels),
        output_loading_info=True,
        **options,
    )
    new = sorted({*loaded["missing_keys"], *(key[0] for key in loaded["mismatched_keys"])})
    _check_loaded(model, new, base)
    return model, new


def _check_loaded(model: PreTrainedModel, new: Sequence[str], base: Path) -> None:
    if not new:
        return
    weights = model.state_dict()
    made = sum(weights[name].numel() for name in new if name in weights)
    names = ", ".join(new[:5]) + (f" and {len(new) - 5} more" if len(new) > 5 else "")
    if made > NEW_SHARE * sum(weight.numel() for weight in weights.values()):
        raise ValueError(f"the files in {base} lack {len(new)} of the weights of {type(model).__name__}: {names}")
    if int(os.environ.get("RANK", "0")) == 0:
        print(f"new weights, which the files do not have: {names}", flush=True)
