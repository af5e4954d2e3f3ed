"""Lays out a model that transformers trained, and proves it by what it makes of held-out rows."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from safetensors.torch import load_file

from kfp_finetune.components.export_model.verify import ExportError
from kfp_finetune.components.transformers_train.checkpoints import (
    DESCRIBING,
    PREDICTIONS_NAME,
    WEIGHTS,
    named_logits,
)
from kfp_finetune.components.transformers_train.conclusion import HELD_OUT_FOLDER
from kfp_finetune.components.transformers_train.lora import merge
from kfp_finetune.components.transformers_train.model import load_base
from kfp_finetune.components.transformers_train.prepare import ROWS_FOLDER
from kfp_finetune.components.transformers_train.recipe import Recipe
from kfp_finetune.components.transformers_train.tasks.processors import load_processor
from kfp_finetune.publishing import link_or_copy
from kfp_finetune.training.epochs import ADAPTER_FOLDER

TOLERANCE, HALF_TOLERANCE = 1e-3, 0.1
"""Largest difference allowed between predictions, relative to the largest: with fp32 throughout, and with 16 bits in
training, in the files or in both."""


@dataclass(frozen=True)
class Verdict:
    """What was proven.

    Args:
        parameters: How many numbers the model holds.
        predicted_rows: Rows of which the predictions were compared.
        largest_difference: Between predictions of the export and those of training, relative to the largest.
    """

    parameters: int
    predicted_rows: int
    largest_difference: float


def write_trained(recipe: Recipe, epoch: Path, base: Path, merged: Path) -> None:
    """Writes the folder that transformers loads, in the dtype of the base's files.

    Args:
        recipe: The training.
        epoch: A whole epoch of it.
        base: The base model.
        merged: The folder to make.
    """
    merged.mkdir()
    dtype = dtype_of(base)
    model: Any
    if recipe.settings.lora_config:
        model, _ = load_base(recipe, base, load_processor(recipe.task, base), dtype)
        merge(model, epoch / ADAPTER_FOLDER).to(dtype).save_pretrained(merged)
    elif dtype != torch.float32:
        kind = getattr(transformers, recipe.settings.transformer_type)
        model = kind.from_pretrained(epoch, dtype=dtype, local_files_only=True, use_safetensors=True)
        model.save_pretrained(merged)
    else:
        for pattern in (*WEIGHTS, "config.json"):
            for path in epoch.glob(pattern):
                link_or_copy(path, merged / path.name)
    for path in epoch.iterdir():
        if path.suffix in DESCRIBING and not (merged / path.name).exists() and not path.name.startswith("model."):
            shutil.copyfile(path, merged / path.name)


def dtype_of(model: Path) -> torch.dtype:
    """The dtype that a model's config.json names; fp32 if it names none."""
    config = json.loads((model / "config.json").read_text())
    return getattr(torch, str(config.get("dtype") or config.get("torch_dtype") or "float32"))


def verify_predictions(recipe: Recipe, training: Path, epoch: Path, merged: Path) -> Verdict:
    """Loads an export as its users will, and compares what it makes of held-out rows with what training noted.

    Args:
        recipe: The training.
        training: Its folder.
        epoch: The epoch that was exported.
        merged: The folder that transformers is to load.

    Raises:
        ExportError: If weights are missing, surplus, of another shape or not finite, or predictions differ.
    """
    kind = getattr(transformers, recipe.settings.transformer_type)
    model, loaded = kind.from_pretrained(
        merged, dtype=torch.float32, local_files_only=True, use_safetensors=True, output_loading_info=True
    )
    if wrong := {fault: sorted(map(str, names)) for fault, names in loaded.items() if names}:
        raise ExportError(f"{kind.__name__} would not load {merged}: {wrong}")
    if broken := [name for name, weight in model.named_parameters() if not weight.isfinite().all()]:
        raise ExportError(f"{broken[0]} holds values that are not finite; the training diverged")
    noted = load_file(epoch / HELD_OUT_FOLDER / PREDICTIONS_NAME)
    rows = datasets.load_from_disk(str(training / ROWS_FOLDER / "held_out")).select(range(len(noted["logits_0"])))
    made = _predict(recipe, model, merged, rows)
    exact = recipe.settings.dtype == "fp32" and dtype_of(merged) == torch.float32
    return Verdict(model.num_parameters(), len(rows), _compare(made, noted, TOLERANCE if exact else HALF_TOLERANCE))


def _predict(recipe: Recipe, model: Any, merged: Path, rows: datasets.Dataset) -> dict[str, torch.Tensor]:
    task, device = recipe.task, "cuda" if torch.cuda.is_available() else "cpu"
    batch = task.collator(load_processor(task, merged), recipe.settings.task)(_inputs(model, rows, task.references))
    with torch.inference_mode():
        given = {name: value.to(device) for name, value in batch.items()}
        outputs = model.to(device).eval()(**given)
    return named_logits([value for name, value in outputs.items() if "logits" in name])


def _inputs(model: Any, rows: datasets.Dataset, references: tuple[str, ...]) -> list[dict[str, Any]]:
    """Rows without the columns that only the figures need."""
    import inspect

    known = {*inspect.signature(model.forward).parameters, *references}
    kept = [name for name in rows.column_names if name in known] if "input_ids" in rows.column_names else None
    return list(rows.select_columns(kept) if kept else rows)


def _compare(made: dict[str, torch.Tensor], noted: dict[str, torch.Tensor], tolerance: float) -> float:
    largest = 0.0
    for name, wanted in noted.items():
        difference = float((made[name] - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12))
        if not difference <= tolerance:
            raise ExportError(
                f"the export's predictions for held-out rows are not those of training: {name} differ by "
                f"{difference:.2g} of the largest value, and {tolerance:.0e} is allowed"
            )
        largest = max(largest, difference)
    return largest
