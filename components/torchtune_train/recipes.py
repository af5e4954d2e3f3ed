"""torchtune's recipes, and which of them trains what."""

import importlib.util
from pathlib import Path
from types import ModuleType

from kfp_finetune.components.torchtune_train.settings import runs_without_fsdp

FULL = ("full_finetune_distributed", "FullFinetuneRecipeDistributed")
ADAPTER = ("lora_finetune_distributed", "LoRAFinetuneRecipeDistributed")
ALONE = ("lora_finetune_single_device", "LoRAFinetuneRecipeSingleDevice")
FULL_DPO = ("full_dpo_distributed", "FullDPORecipeDistributed")
ADAPTER_DPO = ("lora_dpo_distributed", "LoRADPORecipeDistributed")
"""File and class of torchtune's recipes."""


def choose_recipe(method: str, world_size: int, of_pairs: bool = False) -> tuple[str, str]:
    """File and class of the recipe for a method.

    Args:
        method: One of `METHODS`.
        world_size: Number of processes.
        of_pairs: Whether rows are pairs of answers.
    """
    if of_pairs:
        return FULL_DPO if method == "full" else ADAPTER_DPO
    if method == "full":
        return FULL
    return ALONE if runs_without_fsdp(method, world_size) else ADAPTER


def load_recipe(file: str) -> ModuleType:
    """Imports a recipe by its file: torchtune's `recipes` package raises when it is imported by name."""
    import torchtune

    path = Path(torchtune.__file__).parent.parent / "recipes" / f"{file}.py"
    spec = importlib.util.spec_from_file_location(f"torchtune_recipe_{file}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
