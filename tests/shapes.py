"""torchtune's models of the shapes that a config.json describes, without files."""

import copy
from typing import Any

import tiny
import torch
from omegaconf import OmegaConf
from torchtune import config as torchtune_config
from torchtune.modules.peft import get_adapter_params, set_trainable_params
from transformers import AutoConfig

from kfp_finetune.components.torchtune_train.config import _model
from kfp_finetune.components.torchtune_train.families import Architecture
from kfp_finetune.components.torchtune_train.models import read_architecture
from kfp_finetune.components.torchtune_train.settings import TrainSettings

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
LAYERS = 4


def architecture_of(family: str, **changes: Any) -> Architecture:
    """The architecture of a tiny model of a family."""
    shape = copy.deepcopy(tiny.SIZES | tiny.FAMILIES[family] | {"num_hidden_layers": LAYERS} | changes)
    return read_architecture({**AutoConfig.for_model(family, **shape).to_dict(), "architectures": None})


def build(train: TrainSettings, architecture: Architecture) -> Any:
    """The model that a training with some settings trains, with weights drawn at random."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(DTYPES[train.dtype])
    try:
        model = torchtune_config.instantiate(OmegaConf.create(_model(train, architecture)))
    finally:
        torch.set_default_dtype(before)
    if train.has_adapter:
        set_trainable_params(model, get_adapter_params(model))
    return model
