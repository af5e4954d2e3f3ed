"""Sweeps with results of every kind, without training anything."""

from typing import Any

from crafted_runs import make_plan

from kfp_finetune.components.sweep.aim import Aim
from kfp_finetune.components.sweep.results import Comparison, Result
from kfp_finetune.components.sweep.sweep import Sweep, Trial


def make_trial(number: int, text: str = "a", **values: Any) -> Trial:
    """A trial of a training with a text wherever one can go."""
    return Trial(number, values, make_plan(text, key=f"key{number}"), "sweep")


def make_comparison(text: str = "a") -> Comparison:
    """Trials over three settings, of which one failed and one diverged."""
    found = [
        (1e-5, 8, "lora", 2.91), (1e-5, 32, "lora", 2.80), (1e-4, 8, "lora", 1.92), (1e-4, 32, "dora", 1.71),
        (1e-3, 8, "dora", 1.98), (1e-3, 32, "lora", 2.4),
    ]  # fmt: skip
    results = []
    for number, (rate, rank, method, loss) in enumerate(found, start=1):
        trial = make_trial(number, text, learning_rate=rate, lora_rank=rank, method=method)
        figures = {"loss": loss, "perplexity": 2.718281828**loss, "improvement": 3.25 - loss}
        results.append(Result(trial, figures, 3.25, 18_000.0 + number, 61.25 * number, has_model=True))
    for number, failure in (7, f"out of memory\n{text}"), (8, "Its loss is no number: the training diverged."):
        trial = make_trial(number, text, learning_rate=0.1, lora_rank=64, method="lora")
        results.append(Result(trial, failure=failure))
    sweep = Sweep("sweep", "series", Aim(), [result.trial for result in results], {})
    return Comparison(sweep, results, results[3])
