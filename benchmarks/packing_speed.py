"""Training with packed rows against training with padded ones."""

import contextlib
import statistics
from pathlib import Path

from benchmarks.measure import Figure, in_turns, ratios, start_over
from kfp_finetune.client.demo.docstrings import write_dataset
from kfp_finetune.client.demo.tiny_model import Shape, reference_texts, write_base_model
from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset
from kfp_finetune.components.initialize_model.model import initialize_model
from kfp_finetune.components.torchtune_train.planning import make_plan
from kfp_finetune.components.torchtune_train.train import train
from kfp_finetune.training.plan import Plan
from kfp_finetune.training.result import read_result

ROUNDS = 3
SHAPE = Shape(hidden_size=256, intermediate_size=704, layers=4, heads=8, key_value_heads=4)
COMMON = {"dtype": "fp32", "split": "train[:400]", "held_out": "test"}
UNPACKED = {"batch_size": 8, "max_seq_len": 192}
PACKED = {"batch_size": 2, "max_seq_len": 192, "packed": True}
"""Nearly as many tokens in a step on both sides: eight rows of 41 tokens on average, or two full sequences."""


def measure(directory: Path) -> list[Figure]:
    """Trains on the demo's questions and answers, packed and padded, and compares tokens per second.

    Args:
        directory: Where to work.
    """
    rows, base, root = directory / "docstrings", directory / "base", str(directory / "workspace")
    write_dataset(rows)
    write_base_model(base, reference_texts(rows / "train.jsonl"), steps=1, shape=SHAPE)
    with (directory / "log").open("w") as log, contextlib.redirect_stdout(log):
        dataset, model = initialize_dataset(str(rows), root), initialize_model(str(base), root)
        packed, padded = (
            make_plan(dataset, model, "bench", COMMON | settings, root).plan for settings in (PACKED, UNPACKED)
        )
        ours, theirs = in_turns(ROUNDS, lambda number: _speed(packed, root), lambda number: _speed(padded, root))
    ratio, spread = ratios(ours, theirs)
    steps = f"{_tokens_a_step(packed, root):.0f} / {_tokens_a_step(padded, root):.0f} tokens a step"
    return [
        Figure(f"packed / unpacked, tokens per second, {steps}", f"{ratio:.2f}", "", spread),
        Figure("... packed", f"{statistics.median(ours):.0f} tokens/s", "", f"{min(ours):.0f} to {max(ours):.0f}"),
    ]


def _speed(plan: Plan, root: str) -> float:
    """Tokens per second of a training, padding and start-up left out."""
    start_over(Path(root, plan.training))
    return train(plan, root).tokens_per_second


def _tokens_a_step(plan: Plan, root: str) -> float:
    return read_result(Path(root, plan.training)).tokens / plan.total_steps
