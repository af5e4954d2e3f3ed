"""Training with checkpoints inside the epoch, as often as they are ever made, against training without them."""

import contextlib
import statistics
from dataclasses import replace
from pathlib import Path

from benchmarks.measure import Figure, in_turns, ratios, start_over
from kfp_finetune.client.demo.docstrings import write_dataset
from kfp_finetune.client.demo.tiny_model import Shape, reference_texts, write_base_model
from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset
from kfp_finetune.components.initialize_model.model import initialize_model
from kfp_finetune.components.torchtune_train.planning import make_plan
from kfp_finetune.components.torchtune_train.steps import SAVED
from kfp_finetune.components.torchtune_train.train import train
from kfp_finetune.training.plan import Plan

ROUNDS = 3
SHAPE = Shape(hidden_size=256, intermediate_size=704, layers=4, heads=8, key_value_heads=4)
SETTINGS = {
    "method": "full",
    "dtype": "fp32",
    "batch_size": 4,
    "max_seq_len": 192,
    "split": "train[:2400]",
    "held_out": "test",
}
AT_ONCE = 1e-9
"""Minutes: the next checkpoint is made as soon as the share of the time that they may take allows it."""


def measure(directory: Path) -> list[Figure]:
    """Trains every weight of a model on the demo's questions and answers, with checkpoints and without.

    Args:
        directory: Where to work.
    """
    rows, base, root = directory / "docstrings", directory / "base", str(directory / "workspace")
    write_dataset(rows)
    write_base_model(base, reference_texts(rows / "train.jsonl"), steps=1, shape=SHAPE)
    log = directory / "log"
    with log.open("w") as file, contextlib.redirect_stdout(file):
        dataset, model = initialize_dataset(str(rows), root), initialize_model(str(base), root)
        plan = make_plan(dataset, model, "bench", SETTINGS, root).plan
        with_them, without = in_turns(
            ROUNDS, lambda _: _seconds(plan, root, AT_ONCE), lambda _: _seconds(plan, root, 0.0)
        )
    ratio, spread = ratios(with_them, without)
    made = log.read_text().count(SAVED) / ROUNDS
    every = f"one every {statistics.median(with_them) / made:.1f} s" if made else "none"
    return [Figure(f"training with checkpoints inside the epoch, {every} / without", f"{ratio:.3f}", "<= 1.05", spread)]


def _seconds(plan: Plan, root: str, minutes: float) -> float:
    """Of the training loop, the epoch's own checkpoint included."""
    start_over(Path(root, plan.training))
    return train(replace(plan, checkpoint_minutes=minutes), root).seconds
