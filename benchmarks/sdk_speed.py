"""What a user gets by default: this package against the Kubeflow SDK's BuiltinTrainer, on the same rows and model."""

import contextlib
import json
import shutil
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import datasets
import torch
from transformers import AutoModelForCausalLM

from benchmarks.instructions import read_texts, write_instructions, write_vocabulary
from benchmarks.measure import Figure, in_turns, ratios, run, start_over
from kfp_finetune.client.demo.tiny_model import Shape, write_base_model
from kfp_finetune.components.evaluate_model.loss import held_out_loss
from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset
from kfp_finetune.components.initialize_model.model import initialize_model
from kfp_finetune.components.torchtune_train.planning import make_plan
from kfp_finetune.components.torchtune_train.train import train
from kfp_finetune.training.plan import Plan

ROUNDS = 3
ROWS, HELD_OUT = 800, 100
SHAPE = Shape(hidden_size=512, intermediate_size=2048, layers=6, heads=8, key_value_heads=4)
PRETRAINING_STEPS = 60


@dataclass(frozen=True)
class Trained:
    """What one training came to.

    Args:
        tokens: Read, padding left out.
        speed: Tokens per second of the training loop, its checkpoint included.
        loss: Mean over the held-out tokens, afterwards.
    """

    tokens: int
    speed: float
    loss: float


def measure(directory: Path) -> list[Figure]:
    """Trains one epoch with the defaults of both, and evaluates on the same held-out rows.

    Args:
        directory: Where to work.
    """
    rows, base, root = directory / "rows", directory / "base", directory / "workspace"
    write_instructions(rows, ROWS, HELD_OUT)
    write_base_model(base, read_texts(rows), steps=PRETRAINING_STEPS, shape=SHAPE)
    write_vocabulary(base)
    with (directory / "log").open("w") as log, contextlib.redirect_stdout(log):
        (directory / "both").mkdir()
        for part in ("train", "test"):
            shutil.copy(rows / part / f"{part}.parquet", directory / "both")
        dataset, model = initialize_dataset(str(directory / "both"), str(root)), initialize_model(str(base), str(root))
        plans = [
            make_plan(dataset, model, "bench", {"method": method, "held_out": "test"}, str(root)).plan
            for method in ("full", "lora")
        ]
        held_out = datasets.load_from_disk(str(root / plans[0].training / "tokens" / "held_out"))
        loss_of = partial(_loss, held_out)
        sides = [partial(_ours, root, plan, loss_of) for plan in plans]
        full, lora, sdk = in_turns(ROUNDS, *sides, partial(_sdk, directory, base, rows / "train", loss_of))
    if not 0.98 < full[0].tokens / sdk[0].tokens < 1.02:
        raise RuntimeError(f"other tokens: {full[0].tokens} and {sdk[0].tokens}")
    return [*_figures("full", full, sdk, ">= 2 on a CPU"), *_figures("LoRA (the default)", lora, sdk, ">= 2 on a CPU")]


def _figures(name: str, ours: list[Trained], theirs: list[Trained], goal: str) -> list[Figure]:
    ratio, spread = ratios([one.speed for one in ours], [one.speed for one in theirs])
    speeds = [f"{statistics.median(one.speed for one in side):,.0f}" for side in (ours, theirs)]
    more = [one.loss - other.loss for one, other in zip(ours, theirs, strict=True)]
    losses = [f"{statistics.median(one.loss for one in side):.3f}" for side in (ours, theirs)]
    return [
        Figure(f"{name} / SDK's default, tokens/s ({' / '.join(speeds)})", f"{ratio:.2f}", goal, spread),
        Figure(
            f"... held-out loss afterwards ({' / '.join(losses)})",
            f"{statistics.median(more):+.3f}",
            "<= 0.01",
            f"{min(more):+.3f} to {max(more):+.3f}",
        ),
    ]


def _ours(root: Path, plan: Plan, loss_of: Callable[[Path], float], number: int) -> Trained:
    start_over(root / plan.training)
    summary = train(plan, str(root))
    return Trained(summary.tokens, summary.tokens_per_second, loss_of(root / plan.training / "epoch_0"))


def _sdk(directory: Path, model: Path, data: Path, loss_of: Callable[[Path], float], number: int) -> Trained:
    output = directory / f"sdk-{number}"
    places = ["--model", str(model), "--data", str(data), "--output", str(output)]
    run([sys.executable, "-m", "benchmarks.sdk_worker", *places], directory / "sdk.log")
    result = json.loads((output / "result.json").read_text())
    loss = loss_of(output / "epoch_0")
    shutil.rmtree(output)
    return Trained(result["tokens"], result["tokens"] / result["seconds"], loss)


def _loss(held_out: datasets.Dataset, model: Path) -> float:
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    return held_out_loss("evaluate", loaded, held_out)[0]
