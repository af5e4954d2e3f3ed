"""Rows become tokens once, before a GPU is asked for; training and evaluation read the very same tokens."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from transformers import PreTrainedTokenizerBase

from kfp_finetune.chat import IGNORED, Message, encode
from kfp_finetune.components.torchtune_train.settings import DataSettings
from kfp_finetune.datafiles import open_split
from kfp_finetune.errors import Problem, UserError, refuse

HELD_OUT_SEED = 42
"""The same rows are held out whatever else changes, so that losses of different trainings can be compared."""


@dataclass(frozen=True)
class TokenCounts:
    """What became of a part's rows.

    Args:
        rows: Rows that are kept.
        tokens: Their tokens, after cutting.
        label_tokens: Those of them that count in the loss.
        cut_rows: Rows longer than the longest sequence.
        lost_tokens: Tokens cut off from them.
        dropped_rows: Rows left out because nothing that counts in the loss was left of them.
        empty_outputs: Rows whose answer is empty.
    """

    rows: int
    tokens: int
    label_tokens: int
    cut_rows: int
    lost_tokens: int
    dropped_rows: int
    empty_outputs: int


@contextmanager
def open_parts(directory: Path, data: DataSettings) -> Iterator[dict[str, datasets.Dataset]]:
    """The rows to train on and the rows held out, as "train" and "held_out".

    Args:
        directory: The published dataset.
        data: Which rows, and which columns they must have.

    Raises:
        UserError: If a split or column is not there, or a part has no row.
    """
    with open_split(directory, data.split) as rows:
        _check_columns(rows, data)
        if data.held_out_share is None:
            with open_split(directory, data.held_out) as held_out:
                _check_columns(held_out, data)
                yield _not_empty({"train": rows, "held_out": held_out})
        elif len(rows) < 2:
            raise refuse("dataset", f"{len(rows)} rows", "at least 2 rows", "Give more rows.")
        else:
            count = min(max(1, round(len(rows) * data.held_out_share)), len(rows) - 1)
            parts = rows.train_test_split(test_size=count, seed=HELD_OUT_SEED)
            yield {"train": parts["train"], "held_out": parts["test"]}


def _not_empty(parts: dict[str, datasets.Dataset]) -> dict[str, datasets.Dataset]:
    empty = [name for name, rows in parts.items() if len(rows) == 0]
    if empty:
        raise refuse(
            "dataset", f"no row in {' and '.join(empty)}", "at least one row in each part", "Change the split."
        )
    return parts


def _check_columns(rows: datasets.Dataset, data: DataSettings) -> None:
    problems = [
        Problem(
            f"column_map.{role}",
            repr(column),
            f"one of {', '.join(rows.column_names)}",
            f'Name the column: {{"{role}": "..."}}.',
        )
        for role, column in (("input", data.input_column), ("output", data.output_column))
        if column not in rows.column_names
    ]
    if problems:
        raise UserError(problems)


def conversation(sample: Mapping[str, str], data: DataSettings) -> list[Message]:
    """A row as a conversation: a system message if there is one to add, the prompt, and the answer.

    Args:
        sample: A row's text by column.
        data: Which columns hold prompt and answer, and whether the prompt counts in the loss.
    """
    system = [Message("system", data.new_system_prompt)] if data.new_system_prompt else []
    prompt = Message("user", sample[data.input_column], counts=data.train_on_input)
    return [*system, prompt, Message("assistant", sample[data.output_column], counts=True)]


def tokenize(
    rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, data: DataSettings, max_seq_len: int, target: Path
) -> tuple[TokenCounts, list[int]]:
    """Writes the tokens of a part's rows.

    Args:
        rows: With the columns that `data` names, holding text.
        tokenizer: The model's.
        data: How a row becomes a conversation.
        max_seq_len: Tokens after which a row is cut; a row that keeps nothing that counts in the loss is left out.
        target: Directory to write.

    Returns:
        The counts, and every row's length in tokens before cutting.

    Raises:
        UserError: If a row has no text, or nothing is left to train on.
    """
    lengths: list[int] = []
    columns = (data.input_column, data.output_column)

    def encode_batch(batch: Mapping[str, list[Any]], indices: list[int]) -> dict[str, list[list[int]]]:
        samples = [
            {column: _text(batch[column][i], column, row) for column in columns} for i, row in enumerate(indices)
        ]
        encoded = encode(tokenizer, [conversation(sample, data) for sample in samples])
        lengths.extend(len(row.tokens) for row in encoded)
        return {
            "tokens": [row.tokens[:max_seq_len] for row in encoded],
            "labels": [row.labels[:max_seq_len] for row in encoded],
        }

    encoded = rows.map(
        encode_batch, batched=True, with_indices=True, remove_columns=rows.column_names, load_from_cache_file=False
    )
    kept = encoded.filter(lambda labels: _label_tokens(labels) > 0, input_columns="labels", load_from_cache_file=False)
    if len(kept) == 0:
        raise refuse(
            "max_seq_len",
            f"{max_seq_len}, which leaves no answer in any of {len(rows)} rows",
            f"more than the prompts' length; the longest row has {max(lengths)} tokens",
            "Raise max_seq_len.",
        )
    kept.save_to_disk(target)
    return _count(rows, kept, data, lengths, max_seq_len), lengths


def _text(value: Any, column: str, row: int) -> str:
    if isinstance(value, str):
        return value
    raise refuse(
        "dataset",
        f"row {row} (from 0) whose {column} is {value!r}",
        "text in every row",
        "Fill the row or leave it out.",
    )


def _label_tokens(labels: list[int]) -> int:
    return sum(label != IGNORED for label in labels)


def _count(
    rows: datasets.Dataset, kept: datasets.Dataset, data: DataSettings, lengths: list[int], max_seq_len: int
) -> TokenCounts:
    return TokenCounts(
        rows=len(kept),
        tokens=sum(len(tokens) for tokens in kept["tokens"]),
        label_tokens=sum(_label_tokens(labels) for labels in kept["labels"]),
        cut_rows=sum(length > max_seq_len for length in lengths),
        lost_tokens=sum(max(0, length - max_seq_len) for length in lengths),
        dropped_rows=len(rows) - len(kept),
        empty_outputs=sum(not output.strip() for output in rows[data.output_column]),
    )
