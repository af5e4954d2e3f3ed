"""Proves that an export is whole: tensor by tensor, never more than one of them in memory."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from kfp_finetune.progress import progress_printer

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
"""Largest difference allowed between merged weights and base plus adapter, relative to the tensor's largest value."""

PEFT_PREFIX = "base_model.model."


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
    """Tensors of a folder of safetensors files, read one by one.

    Args:
        folder: With at least one *.safetensors file.
        stack: Closes the files.
    """

    def __init__(self, folder: Path, stack: ExitStack):
        self._files: dict[str, Any] = {}
        for path in sorted(folder.glob("*.safetensors")):
            file = stack.enter_context(safe_open(path, framework="pt"))
            self._files |= dict.fromkeys(file.keys(), file)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._files[name].get_tensor(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape, without reading it."""
        return tuple(self._files[name].get_slice(name).get_shape())


def verify(merged: Path, adapter: Path | None, base: Path, lora_scale: float) -> Verdict:
    """Checks every tensor of an export.

    Args:
        merged: Folder that transformers is to load.
        adapter: Folder that peft is to load, or None.
        base: The base model.
        lora_scale: alpha / rank of the adapter.

    Raises:
        ExportError: If a tensor is missing, unexpected, of another shape, not finite, or if merged weights are not
            base plus adapter.
    """
    with ExitStack() as stack:
        weights = Weights(merged, stack)
        _check_names(weights, merged)
        deltas = _Deltas(Weights(adapter, stack), lora_scale) if adapter else None
        originals = Weights(base, stack) if adapter else None
        report = progress_printer("verify", len(weights), "tensor")
        parameters, largest = 0, 0.0
        for done, name in enumerate(weights, start=1):
            tensor = weights[name]
            parameters += tensor.numel()
            if not torch.isfinite(tensor).all():
                raise ExportError(f"{name} holds values that are not finite; the training diverged")
            if deltas is not None and originals is not None:
                largest = max(largest, _difference(name, tensor, originals, deltas))
            report(done)
        if deltas is not None and deltas.unused:
            raise ExportError(f"the adapter has tensors that belong to no weight: {', '.join(sorted(deltas.unused))}")
    return Verdict(len(weights), parameters, largest)


def _check_names(weights: Weights, merged: Path) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(merged, local_files_only=True))
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


class _Deltas:
    """What the adapter adds to each weight."""

    def __init__(self, adapter: Weights, scale: float):
        self._adapter = adapter
        self._scale = scale
        self.unused = {name.removesuffix(".lora_A.weight") for name in adapter if name.endswith(".lora_A.weight")}

    def of(self, weight: str) -> torch.Tensor | None:
        module = PEFT_PREFIX + weight.removesuffix(".weight")
        if module not in self.unused:
            return None
        self.unused.remove(module)
        up = self._adapter[f"{module}.lora_B.weight"].float()
        return self._scale * (up @ self._adapter[f"{module}.lora_A.weight"].float())


def _difference(name: str, merged: torch.Tensor, base: Weights, deltas: _Deltas) -> float:
    delta = deltas.of(name)
    original = base[name]
    if delta is None:
        if not torch.equal(merged, original.to(merged.dtype)):
            raise ExportError(f"{name} has no adapter, and yet it is not as in the base model")
        return 0.0
    expected = original.to(merged.dtype).float().add_(delta)
    difference = float(merged.float().sub_(expected).abs_().max() / expected.abs_().max().clamp_min_(1e-12))
    if not difference <= TOLERANCES[merged.dtype]:
        raise ExportError(
            f"{name} is not base plus adapter: they differ by {difference:.2g} of the largest value, "
            f"and {TOLERANCES[merged.dtype]:.0e} is allowed in {merged.dtype}"
        )
    return difference
