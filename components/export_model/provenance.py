"""What a model card tells beyond the plan, gathered from what the steps left on the volume."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from kfp_finetune.components.export_model.card import Provenance
from kfp_finetune.manifests import read_manifest
from kfp_finetune.training.plan import TRANSFORMERS, Plan

TORCHTUNE_CONFIG = "config.yaml"

TORCHTUNE_SETTINGS = {
    "": ("batch_size", "gradient_accumulation_steps", "clip_grad_norm", "seed"),
    "optimizer": ("_component_", "lr", "weight_decay"),
    "lr_scheduler": ("_component_", "num_warmup_steps"),
    "dataset": ("max_seq_len", "packed"),
    "model": (
        *("lora_rank", "lora_alpha", "lora_dropout", "lora_attn_modules", "apply_lora_to_mlp", "apply_lora_to_output"),
        *("use_dora", "quantize_base"),
    ),
}
"""What a card tells of torchtune's configuration, by the part that it stands in."""

IN_THE_PLAN = frozenset({"transformer_type", "epochs", "dtype", "num_workers", "num_procs_per_worker"})
"""Settings of a training with transformers that the plan has too."""


def gather(root: Path, plan: Plan, dataset_revision: str = "", run_link: str = "") -> Provenance:
    """What there is to know of a training; what is gone from the volume is left out.

    Args:
        root: Of the workspace.
        plan: The training.
        dataset_revision: The dataset's, which neither the plan nor the training's folder has.
        run_link: Address of the run's page, or its id.
    """
    base = read_manifest(root / plan.model)
    read = _of_transformers if plan.trainer == TRANSFORMERS else _of_torchtune
    try:
        settings = read(root / plan.training)
    except FileNotFoundError:
        settings = {}
    return Provenance(base.revision if base else "", dataset_revision, run_link, settings)


def _of_torchtune(training: Path) -> Mapping[str, Any]:
    config = yaml.safe_load((training / TORCHTUNE_CONFIG).read_text())
    found: dict[str, Any] = {}
    for part, names in TORCHTUNE_SETTINGS.items():
        values = config.get(part) or {} if part else config
        found |= {_name(part, name): values[name] for name in names if name in values}
    return found


def _name(part: str, name: str) -> str:
    return {"_component_": part, "lr": "learning_rate"}.get(name, name)


def _of_transformers(training: Path) -> Mapping[str, Any]:
    from kfp_finetune.components.transformers_train.recipe import read_recipe

    recipe = read_recipe(training)
    values = {name: value for name, value in recipe.values.items() if name not in IN_THE_PLAN}
    return {**values, "learning_rate": recipe.settings.peak_learning_rate}
