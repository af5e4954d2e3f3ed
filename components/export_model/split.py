"""Lays out a finished model: merged weights in one folder, the adapter in another, never both in one."""

import json
import shutil
from pathlib import Path

from safetensors import safe_open

from kfp_finetune.chat import DEFAULT_CHAT_TEMPLATE
from kfp_finetune.publishing import link_or_copy
from kfp_finetune.training.epochs import ADAPTER_FOLDER, RECIPE_STATE_NAME
from kfp_finetune.workspace import INDEX_NAME

DTYPE_NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
"""safetensors' name of a dtype, and config.json's."""


def write_merged(epoch: Path, target: Path, has_chat_template: bool) -> None:
    """Writes the folder that transformers loads.

    Args:
        epoch: A whole epoch of the training.
        target: The folder to make; weights are linked to the epoch's where the volume allows it.
        has_chat_template: Whether the base model's tokenizer has one; else the default is written, which it was
            trained with.
    """
    target.mkdir()
    shards = sorted(epoch.glob("*.safetensors"))
    names = ["model.safetensors"] if len(shards) == 1 else [shard.name for shard in shards]
    for shard, name in zip(shards, names, strict=True):
        link_or_copy(shard, target / name)
    if len(shards) > 1:
        (target / INDEX_NAME).write_text(json.dumps(_index(target), indent=2))
    for path in epoch.iterdir():
        if path.is_file() and path.suffix != ".safetensors" and path.name not in (INDEX_NAME, RECIPE_STATE_NAME):
            shutil.copyfile(path, target / path.name)
    _write_dtype(target)
    if not has_chat_template:
        (target / "chat_template.jinja").write_text(DEFAULT_CHAT_TEMPLATE)


def write_adapter(epoch: Path, target: Path, base: str) -> bool:
    """Writes the folder that peft loads, if the training made an adapter.

    Args:
        epoch: A whole epoch of the training.
        target: The folder to make.
        base: What the user named the base model, for the adapter's configuration.

    Returns:
        Whether there is an adapter.
    """
    source = epoch / ADAPTER_FOLDER
    if not (source / "adapter_model.safetensors").exists():
        return False
    target.mkdir()
    link_or_copy(source / "adapter_model.safetensors", target / "adapter_model.safetensors")
    config = json.loads((source / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = base
    with safe_open(target / "adapter_model.safetensors", framework="pt") as adapter:
        config["use_dora"] = any(".lora_magnitude_vector" in name for name in adapter.keys())  # noqa: SIM118
    (target / "adapter_config.json").write_text(json.dumps(config, indent=2))
    return True


def _index(folder: Path) -> dict[str, object]:
    weight_map: dict[str, str] = {}
    size = 0
    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(shard, framework="pt") as weights:
            weight_map |= dict.fromkeys(weights.keys(), shard.name)
        size += shard.stat().st_size
    return {"metadata": {"total_size": size}, "weight_map": weight_map}


def _write_dtype(folder: Path) -> None:
    with safe_open(next(folder.glob("*.safetensors")), framework="pt") as weights:
        dtype = DTYPE_NAMES[weights.get_slice(next(iter(weights.keys()))).get_dtype()]
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["dtype"] = dtype
    if "torch_dtype" in config:
        config["torch_dtype"] = dtype
    path.write_text(json.dumps(config, indent=2))
