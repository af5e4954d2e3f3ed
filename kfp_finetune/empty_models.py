"""Models without weights: their modules and shapes by name, as transformers has them."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def empty_model(transformer_type: str, config: "PretrainedConfig | Path") -> "PreTrainedModel":
    """A model without weights, which takes no memory.

    Args:
        transformer_type: What it is for.
        config: Of the model, or the model's directory.
    """
    import torch
    import transformers

    if isinstance(config, Path):
        config = transformers.AutoConfig.from_pretrained(config, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        return getattr(transformers, transformer_type).from_config(config)
