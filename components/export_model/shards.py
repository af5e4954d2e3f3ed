"""Weights in files of a chosen size, written with the tensors of one file in memory."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import safe_open
from safetensors.torch import save_file

from kfp_finetune.components.export_model.verify import Weights
from kfp_finetune.progress import progress_printer
from kfp_finetune.workspace import INDEX_NAME

DEFAULT_SHARD_SIZE = 5 * 10**9
"""Of files that are written anew for another reason than their size; as the Hub wants them."""

FORMAT = {"format": "pt"}
"""What transformers expects in each file's metadata."""

ENTRY_BYTES = 160
"""The most that a tensor takes in a file's header, beside its name."""


def reshard(folder: Path, max_shard_size: int) -> bool:
    """Writes a folder's weights anew in files of at most a size, unless they are.

    Args:
        folder: With *.safetensors files.
        max_shard_size: In bytes; a tensor that is larger has a file of its own.

    Returns:
        Whether anything was written.
    """
    files = sorted(folder.glob("*.safetensors"))
    if all(file.stat().st_size <= max_shard_size or _tensors(file) == 1 for file in files):
        return False
    weights = Weights(folder)
    fresh = folder / ".fresh"
    fresh.mkdir()
    sizes = {name: weights[name].nbytes for name in weights}
    write_shards("shards", fresh, sizes, lambda name: {name: weights[name]}, max_shard_size)
    for file in (*files, folder / INDEX_NAME):
        file.unlink(missing_ok=True)
    for file in fresh.iterdir():
        file.rename(folder / file.name)
    fresh.rmdir()
    return True


def write_shards(
    what: str,
    folder: Path,
    sizes: Mapping[str, int],
    read: Callable[[str], Mapping[str, torch.Tensor]],
    max_shard_size: int = DEFAULT_SHARD_SIZE,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes weights as transformers' save_pretrained names them, with an index if there is more than one file.

    Args:
        what: Name of the work, for its progress.
        folder: Where they go.
        sizes: Bytes of what `read` gives, by name, in the order of the files.
        read: The tensors that a name stands for; all of them come into one file.
        max_shard_size: In bytes, the file's header included; what is larger alone has a file of its own.
        metadata: Of each file, beside the format.
    """
    described = {**FORMAT, **(metadata or {})}
    room = max_shard_size - sum(len(name) + len(json.dumps(value)) + ENTRY_BYTES for name, value in described.items())
    plan = split_state_dict_into_shards_factory(
        {name: size + len(name) + ENTRY_BYTES for name, size in sizes.items()},
        get_storage_size=lambda size: size,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max(room, 1),
    )
    report = progress_printer(what, len(plan.filename_to_tensors), "file")
    places: dict[str, str] = {}
    total = 0
    for done, (file, names) in enumerate(plan.filename_to_tensors.items(), start=1):
        tensors = {part: tensor for name in names for part, tensor in read(name).items()}
        save_file(tensors, folder / file, metadata=described)
        places |= dict.fromkeys(tensors, file)
        total += sum(tensor.nbytes for tensor in tensors.values())
        del tensors
        report(done)
    if plan.is_sharded:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        (folder / INDEX_NAME).write_text(json.dumps(index, indent=2))


def _tensors(file: Path) -> int:
    with safe_open(file, framework="pt") as weights:
        return len(weights.keys())
