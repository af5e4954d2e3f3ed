"""What quantising costs: the perplexity of a model and of its copy on held-out rows, both loaded as users will."""

import math
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import AutoModelForCausalLM

from kfp_finetune.components.evaluate_model.loss import held_out_loss
from kfp_finetune.components.export_model.four_bits import multiplied_on_cpu
from kfp_finetune.components.transformers_train.prepare import ROWS_FOLDER
from kfp_finetune.errors import refuse
from kfp_finetune.training.evaluation import perplexity
from kfp_finetune.training.exporting import INT4, WHAT, ExportSettings
from kfp_finetune.training.plan import TORCHTUNE, Plan

TOKENS_COMPARED = 16_384
"""So many of the held-out rows are enough: both models read the same tokens, at each of which their losses differ by
some tenths of a nat at most, so the mean by some thousandths by chance; and a CPU has an answer within minutes."""

KERNEL_CAPABILITY = (8, 0)
"""Of a GPU of NVIDIA that multiplies with four bits."""


@dataclass(frozen=True)
class Comparison:
    """A model and its quantised copy.

    Args:
        perplexity: The model's, on held-out rows.
        quantized_perplexity: The copy's, on the same.
        perplexity_tokens: Tokens that were predicted.
        merged_bytes: Size of the model's weights.
        quantized_bytes: The same of the copy.
    """

    perplexity: float
    quantized_perplexity: float
    perplexity_tokens: int
    merged_bytes: int
    quantized_bytes: int

    @property
    def increase(self) -> float:
        """By how much the copy's perplexity is above the model's, as a fraction."""
        return self.quantized_perplexity / self.perplexity - 1

    @property
    def facts(self) -> dict[str, Any]:
        """All of it, for the export's manifest."""
        return {**asdict(self), "perplexity_increase": self.increase}


def compare(plan: Plan, training: Path, merged: Path, quantized: Path, settings: ExportSettings) -> Comparison:
    """Measures a model and its quantised copy, as they lie on the volume.

    Args:
        plan: The training.
        training: Its folder, with the held-out rows.
        merged: The model.
        quantized: The copy.
        settings: How it was made, and the bound that it must keep.

    Raises:
        UserError: If the copy does not keep the bound.
    """
    rows = held_out_rows(plan, training)
    before, tokens = _loss("perplexity of the model", merged, rows, "")
    after, _ = _loss(f"perplexity in {settings.quantize}", quantized, rows, settings.quantize or "")
    found = Comparison(perplexity(before), perplexity(after), tokens, _bytes(merged), _bytes(quantized))
    if not found.increase <= settings.most_increase:
        raise refuse(
            f"{WHAT}.max_perplexity_increase",
            f"{found.increase:.4g}: perplexity {found.quantized_perplexity:.4g} in {settings.quantize}, and "
            f"{found.perplexity:.4g} of the model, on {tokens:,} tokens of the held-out rows",
            f"at most {settings.most_increase:g}",
            f"Nothing was exported; the training stays. Set another bound or {WHAT}.quantize, or take them out.",
        )
    return found


def held_out_rows(plan: Plan, training: Path) -> datasets.Dataset:
    """The first of a training's held-out rows, as its trainer read them, with `tokens` and `labels`.

    Args:
        plan: The training.
        training: Its folder.
    """
    if plan.trainer == TORCHTUNE:
        rows = datasets.load_from_disk(str(training / "tokens" / "held_out"))
    else:
        rows = datasets.load_from_disk(str(training / ROWS_FOLDER / "held_out")).rename_column("input_ids", "tokens")
    count = total = 0
    for tokens in rows["tokens"]:
        if count and total + len(tokens) > TOKENS_COMPARED:
            break
        count, total = count + 1, total + len(tokens)
    return rows.select(range(count))


def _loss(what: str, folder: Path, rows: datasets.Dataset, bits: str) -> tuple[float, int]:
    on_gpu = torch.cuda.is_available() and (bits != INT4 or _has_kernel())
    options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False}
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", device_map="auto" if on_gpu else "cpu", **options
    )
    with nullcontext() if on_gpu else multiplied_on_cpu():
        loss, tokens = held_out_loss(what, model.eval(), rows)
    return (loss if tokens else math.nan), tokens


def _has_kernel() -> bool:
    """Whether the GPU multiplies with four bits; those of AMD do, in another order of numbers."""
    return torch.version.hip is None and torch.cuda.get_device_capability() >= KERNEL_CAPABILITY


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
