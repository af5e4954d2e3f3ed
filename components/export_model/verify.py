"""Proves that an export is whole: tensor by tensor, never more than one of them in memory."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from kfp_finetune.components.torchtune_train.families import Config, complete
from kfp_finetune.components.torchtune_train.quantization import in_four_bits
from kfp_finetune.empty_models import empty_model
from kfp_finetune.progress import progress_printer
from kfp_finetune.training.plan import CAUSAL_LM

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
"""Largest difference allowed between merged weights and base plus adapter, relative to the tensor's largest value."""

PEFT_PREFIX = "base_model.model."
ROWS_AT_ONCE = 4096
"""Rows of a matrix that are compared at once; bounds the memory."""


class ExportError(RuntimeError):
    """The files do not hold the model that was trained."""


@dataclass(frozen=True)
class Verdict:
    """What was proven.

    Args:
        tensors: How many tensors were looked at.
        parameters: How many numbers they hold.
        largest_difference: Between merged weights and base plus adapter, relative; 0 without an adapter.
    """

    tensors: int
    parameters: int
    largest_difference: float


class Weights:
    """Tensors of a folder of safetensors files.

    A file is opened for each read and closed after it, so that only the tensor in hand is in memory.

    Args:
        folder: With at least one *.safetensors file.
    """

    def __init__(self, folder: Path):
        self._files: dict[str, Path] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118  it is no mapping
                    self._files[name] = path
                    self._shapes[name] = tuple(file.get_slice(name).get_shape())

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __getitem__(self, name: str) -> torch.Tensor:
        with safe_open(self._files[name], framework="pt") as file:
            return file.get_tensor(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape, without reading it."""
        return self._shapes[name]


def verify(merged: Path, adapter: Path | None, base: Path, lora_scale: float, quantized: bool = False) -> Verdict:
    """Checks every tensor of an export.

    Args:
        merged: Folder that transformers is to load.
        adapter: Folder that peft is to load, or None.
        base: The base model.
        lora_scale: alpha / rank of the adapter.
        quantized: Whether training held the base in four bits.

    Raises:
        ExportError: If a tensor is missing, unexpected, of another shape, not finite, or if merged weights are not
            base plus adapter.
    """
    weights = Weights(merged)
    _check_names(weights, merged)
    four_bits = complete(json.loads((base / "config.json").read_text())) if quantized else None
    changes = _Adapter(Weights(adapter), lora_scale, four_bits) if adapter else None
    originals = Weights(base)
    report = progress_printer("verify", len(weights), "tensor")
    parameters, largest = 0, 0.0
    for done, name in enumerate(weights, start=1):
        tensor = weights[name]
        parameters += tensor.numel()
        if not all(extreme.isfinite() for extreme in torch.aminmax(tensor)):
            raise ExportError(f"{name} holds values that are not finite; the training diverged")
        if changes is not None:
            largest = max(largest, _difference(name, tensor, originals[name], changes))
        report(done)
    if changes is not None and changes.unused:
        raise ExportError(f"the adapter has tensors that belong to no weight: {', '.join(sorted(changes.unused))}")
    return Verdict(len(weights), parameters, largest)


def _check_names(weights: Weights, merged: Path) -> None:
    model = empty_model(CAUSAL_LM, merged)
    expected: Mapping[str, torch.Tensor] = model.state_dict()
    tied = set(model.all_tied_weights_keys)
    missing = sorted(expected.keys() - set(weights) - tied)
    unexpected = sorted(set(weights) - expected.keys())
    misshapen = sorted(
        name for name in weights if name in expected and weights.shape(name) != tuple(expected[name].shape)
    )
    faults = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    found = [f"{len(names)} {fault}: {', '.join(names[:5])}" for fault, names in faults.items() if names]
    if found:
        raise ExportError(f"transformers would not load {merged}: {'; '.join(found)}")


@dataclass(frozen=True)
class _Change:
    """What an adapter does to a weight: W + left right, each row then of the given magnitude (DoRA) or as it is."""

    left: torch.Tensor
    right: torch.Tensor
    magnitude: torch.Tensor | None

    def apply(self, weight: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        changed = weight[rows].float().addmm_(self.left[rows], self.right)
        if self.magnitude is None:
            return changed
        return changed * (self.magnitude[rows] / changed.norm(dim=1)).unsqueeze(1)


class _Adapter:
    """What the adapter does to each weight; `four_bits` is the base's config.json if training held it in four bits."""

    def __init__(self, adapter: Weights, scale: float, four_bits: Config | None):
        self._adapter = adapter
        self._scale = scale
        self.four_bits = four_bits
        self.unused = {name.removesuffix(".lora_A.weight") for name in adapter if name.endswith(".lora_A.weight")}

    def take(self, weight: str) -> _Change | None:
        """What is done to a weight, or None; each is taken once."""
        module = PEFT_PREFIX + weight.removesuffix(".weight")
        if module not in self.unused:
            return None
        self.unused.remove(module)
        left = self._adapter[f"{module}.lora_B.weight"].float() * self._scale
        magnitude = f"{module}.lora_magnitude_vector"
        return _Change(
            left,
            self._adapter[f"{module}.lora_A.weight"].float(),
            self._adapter[magnitude].float() if magnitude in self._adapter else None,
        )


def _difference(name: str, merged: torch.Tensor, base: torch.Tensor, adapter: _Adapter) -> float:
    base = base.to(merged.dtype)
    change = adapter.take(name)
    if change is None:
        if not torch.equal(merged, base) and not (
            adapter.four_bits is not None and _is_in_four_bits(name, merged, base, adapter.four_bits)
        ):
            raise ExportError(f"{name} has no adapter, and yet it is not as in the base model")
        return 0.0
    if adapter.four_bits is not None:
        base = in_four_bits(name, base, adapter.four_bits)
    largest, difference = 1e-12, 0.0
    for rows in torch.arange(len(merged)).split(ROWS_AT_ONCE):
        expected = change.apply(base, rows)
        largest = max(largest, float(expected.abs().max()))
        difference = max(difference, float((merged[rows].float() - expected).abs().max()))
    if not difference / largest <= TOLERANCES[merged.dtype]:
        raise ExportError(
            f"{name} is not base plus adapter: they differ by {difference / largest:.2g} of the largest value, "
            f"and {TOLERANCES[merged.dtype]:.0e} is allowed in {merged.dtype}"
        )
    return difference / largest


def _is_in_four_bits(name: str, merged: torch.Tensor, base: torch.Tensor, config: Config) -> bool:
    """Whether a matrix without an adapter is as training held it."""
    if base.dim() != 2:
        return False
    difference = (merged - in_four_bits(name, base, config)).abs().max()
    return bool(difference <= TOLERANCES[base.dtype] * base.abs().max())
