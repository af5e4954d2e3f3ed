"""Turning rows into tokens and labels against turning them into tokens alone, with datasets and the same tokenizer."""

import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import datasets

from benchmarks.measure import Figure, in_turns, ratios
from kfp_finetune.chat import load_tokenizer
from kfp_finetune.client.demo.docstrings import write_dataset
from kfp_finetune.client.demo.tiny_model import reference_texts, train_tokenizer
from kfp_finetune.components.torchtune_train.parts import open_parts
from kfp_finetune.components.torchtune_train.settings import DataSettings
from kfp_finetune.components.torchtune_train.tokens import tokenize

ROUNDS = 7
LONGEST = 2048


def measure(directory: Path) -> list[Figure]:
    """Tokenizes the demo's questions and answers as `plan` does, and with `datasets.map` and no labels.

    Args:
        directory: Where to work.
    """
    rows, model = directory / "docstrings", directory / "model"
    write_dataset(rows)
    train_tokenizer(reference_texts(rows / "train.jsonl")).save_pretrained(model)
    tokenizer = load_tokenizer(model)
    datasets.disable_progress_bars()
    data = DataSettings(held_out="test")

    def apply(batch: Mapping[str, list[str]]) -> Mapping[str, list[list[int]]]:
        turns = [
            [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            for question, answer in zip(batch["input"], batch["output"], strict=True)
        ]
        return tokenizer.apply_chat_template(turns, return_dict=True)

    with open_parts(rows, data) as parts:
        part = parts.train

        def ours(number: int) -> float:
            began = time.monotonic()
            tokenize(part, tokenizer, parts.shape, data, LONGEST, directory / f"tokens-{number}")
            return len(part.rows) / (time.monotonic() - began)

        def theirs(number: int) -> float:
            began = time.monotonic()
            part.rows.map(apply, batched=True, remove_columns=part.rows.column_names, load_from_cache_file=False)
            return len(part.rows) / (time.monotonic() - began)

        speeds, bare = in_turns(ROUNDS, ours, theirs)
    ratio, spread = ratios(speeds, bare)
    return [
        Figure("tokens and labels / datasets.map with tokens alone, rows per second", f"{ratio:.2f}", "", spread),
        Figure(
            "... rows per second", f"{statistics.median(speeds):,.0f}", "", f"{min(speeds):,.0f} to {max(speeds):,.0f}"
        ),
    ]
