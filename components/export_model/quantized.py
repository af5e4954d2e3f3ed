"""A copy of a model in eight or four bits, made tensor by tensor, as safetensors that transformers loads."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
from torchao.quantization import Int4WeightOnlyConfig, IntxWeightOnlyConfig
from transformers import TorchAoConfig

from kfp_finetune.components.export_model.four_bits import COLUMNS, in_tiles
from kfp_finetune.components.export_model.shards import DEFAULT_SHARD_SIZE, write_shards
from kfp_finetune.components.export_model.verify import Weights
from kfp_finetune.empty_models import empty_model
from kfp_finetune.errors import Problem, UserError, refuse
from kfp_finetune.rounding import DTYPE, GROUP_SIZE, can_round, in_eight_bits
from kfp_finetune.training.exporting import INT4, INT8, WHAT
from kfp_finetune.training.plan import CAUSAL_LM
from kfp_finetune.workspace import INDEX_NAME


@dataclass(frozen=True)
class Scheme:
    """How weights are quantised.

    Args:
        config: torchao's name for it.
        dtype: Of the weights that are not; None for what they have.
        quantize: What becomes of a matrix.
        names: The matrices.
    """

    config: Any
    dtype: torch.dtype | None
    quantize: Callable[[torch.Tensor], torch.Tensor]
    names: frozenset[str]

    def apply(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """What is written of a tensor."""
        if name in self.names:
            return self.quantize(weight)
        return weight.to(self.dtype) if self.dtype and weight.is_floating_point() else weight


def write_quantized(merged: Path, target: Path, bits: str, max_shard_size: int | None = None) -> None:
    """Writes the folder that transformers loads as a quantised model; on a GPU if there is one.

    Args:
        merged: The model.
        target: The folder to make.
        bits: "int8" or "int4".
        max_shard_size: Bytes of the largest file of weights. Default: 5 GB.

    Raises:
        UserError: If the model has no matrix that can be quantised, or the copy would not be smaller.
    """
    weights = Weights(merged)
    scheme = choose_scheme(merged, weights, bits)
    sizes, metadata = outline(weights, scheme, bits)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def read(name: str) -> dict[str, torch.Tensor]:
        parts = _parts(name, scheme.apply(name, weights[name].to(device)))
        return {part: tensor.cpu().contiguous() for part, tensor in parts.items()}

    target.mkdir()
    write_shards("quantize", target, sizes, read, max_shard_size or DEFAULT_SHARD_SIZE, metadata)
    for path in merged.iterdir():
        if path.suffix != ".safetensors" and path.name != INDEX_NAME:
            shutil.copyfile(path, target / path.name)
    config = json.loads((target / "config.json").read_text())
    config["quantization_config"] = TorchAoConfig(scheme.config).to_dict()
    if scheme.dtype:
        config["dtype"] = str(scheme.dtype).removeprefix("torch.")
    (target / "config.json").write_text(json.dumps(config, indent=2))


def choose_scheme(folder: Path, weights: Weights, bits: str) -> Scheme:
    """How a model's weights are quantised: all matrices but embeddings and the output's.

    Args:
        folder: The model.
        weights: Its weights.
        bits: "int8" or "int4".

    Raises:
        UserError: If it has no matrix that can be quantised.
    """
    linear = [name for name in linear_weights(folder) if name in weights]
    names = [name for name in linear if can_round(weights.shape(name)[1], bits)]
    if not names:
        multiple = 1 if bits == INT8 else GROUP_SIZE
        allowed = f"a model with linear layers of torch, with a multiple of {multiple} columns"
        raise refuse(f"{WHAT}.quantize", f"{bits}, of a model without such a layer", allowed, "Take it out.")
    if bits == INT8:
        # torchao 0.15 writes its Int8WeightOnlyConfig to pickles alone, and these same numbers to safetensors too.
        return Scheme(IntxWeightOnlyConfig(weight_dtype=torch.int8), None, in_eight_bits, frozenset(names))
    config = Int4WeightOnlyConfig(group_size=GROUP_SIZE, int4_packing_format="tile_packed_to_4d")
    return Scheme(config, DTYPE, partial(in_tiles, group_size=GROUP_SIZE), frozenset(names))


def outline(weights: Weights, scheme: Scheme, bits: str) -> tuple[dict[str, int], dict[str, str]]:
    """What a copy will be, known without reading a weight.

    Args:
        weights: The model's.
        scheme: How they are quantised.
        bits: "int8" or "int4".

    Returns:
        The bytes of what becomes of each weight, and what each file says of all of them.

    Raises:
        UserError: If the copy would not be smaller.
    """
    empty = {name: torch.empty(weights.shape(name), dtype=weights[name].dtype, device="meta") for name in weights}
    made = {name: scheme.apply(name, tensor) for name, tensor in empty.items()}
    sizes = {name: sum(part.nbytes for part in _parts(name, tensor).values()) for name, tensor in made.items()}
    before, after = sum(tensor.nbytes for tensor in empty.values()), sum(sizes.values())
    if after >= before:
        given = f"{bits}, in which the {before:,} bytes of the model become {after:,}"
        mend = f"Take it out, or set {INT8}: in {INT4}, columns are filled up to a multiple of {COLUMNS}."
        raise refuse(f"{WHAT}.quantize", given, "a copy that is smaller than the model", mend)
    return sizes, flatten_tensor_state_dict(made)[1]


def check_model(folder: Path, bits: str) -> list[Problem]:
    """What keeps a model from being quantised, known before it is trained.

    Args:
        folder: The base model; if transformers cannot make anything of it, that is for others to say.
        bits: "int8" or "int4".
    """
    try:
        weights = Weights(folder)
        outline(weights, choose_scheme(folder, weights, bits), bits)
    except UserError as error:
        return list(error.problems)
    except (OSError, ValueError):
        return []
    return []


def linear_weights(folder: Path) -> list[str]:
    """Names of the matrices of a model's linear layers, without the output's.

    Args:
        folder: The model; its weights are not read.
    """
    model = empty_model(CAUSAL_LM, folder)
    kept = set(model._keep_in_fp32_modules or ())
    return [
        f"{name}.weight"
        for name, module in model.named_modules()
        if type(module) is torch.nn.Linear
        and module is not model.get_output_embeddings()
        and not kept & set(name.split("."))
    ]


def _parts(name: str, tensor: torch.Tensor) -> Mapping[str, torch.Tensor]:
    return flatten_tensor_state_dict({name: tensor})[0]
