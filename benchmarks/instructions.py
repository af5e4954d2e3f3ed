"""Instruction data as it usually is: most answers short, a few long, so that rows differ in length by far."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import datasets

from kfp_finetune.client.demo.docstrings import Pair, docstring_pairs

MEDIAN_WORDS, SPREAD, MOST_WORDS = 35, 0.9, 400
"""Answers' lengths are drawn from a log-normal distribution: Alpaca's have a median of about 35 words, and a tenth more
than 110."""


def write_instructions(directory: Path, rows: int, held_out: int, seed: int = 7) -> None:
    """Writes `train/train.parquet` and `test/test.parquet`, with columns `input` and `output`.

    The text is that of the standard library's docstrings; answers are joined until they have the length drawn.

    Args:
        directory: Where the folders go.
        rows: To train on.
        held_out: To evaluate on.
        seed: Of the draw.
    """
    made = list(_rows(rows + held_out, random.Random(seed)))
    for name, part in (("train", made[:rows]), ("test", made[rows:])):
        (directory / name).mkdir(parents=True)
        datasets.Dataset.from_list(part).to_parquet(str(directory / name / f"{name}.parquet"))


def _rows(count: int, draw: random.Random) -> Iterator[dict[str, str]]:
    pairs = docstring_pairs()
    draw.shuffle(pairs)
    answers = _endless(pairs)
    for pair in pairs[:count]:
        wanted = min(MOST_WORDS, round(draw.lognormvariate(0, SPREAD) * MEDIAN_WORDS))
        words = pair.answer.split()
        while len(words) < wanted:
            words += next(answers).split()
        yield {"input": pair.question, "output": " ".join(words[: max(wanted, 3)])}


def _endless(pairs: list[Pair]) -> Iterator[str]:
    while True:
        yield from (pair.answer for pair in pairs)


def read_texts(directory: Path) -> list[str]:
    """The training rows as plain texts, for a base model's pretraining.

    Args:
        directory: As given to `write_instructions`.
    """
    rows = datasets.load_dataset("parquet", data_dir=str(directory / "train"), split="train")
    return [f"{row['input']}\n{row['output']}" for row in rows]


def write_vocabulary(model: Path) -> None:
    """Writes `vocab.json`, `merges.txt` and `special_tokens.json`, as torchtune's own tokenizer of Qwen 2.5 reads them.

    Args:
        model: Directory with tokenizer.json.
    """
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    special = [{"content": token["content"], "id": token["id"]} for token in tokenizer["added_tokens"]]
    last = max(tokenizer["model"]["vocab"].values())
    calls = [
        {"content": content, "id": last - offset} for offset, content in enumerate(("<tool_call>", "</tool_call>"))
    ]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]]
    (model / "vocab.json").write_text(json.dumps(tokenizer["model"]["vocab"]))
    (model / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (model / "special_tokens.json").write_text(json.dumps({"added_tokens": special + calls}))
