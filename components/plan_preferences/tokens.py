"""Pairs become tokens once, before a GPU is asked for; training and evaluation read the very same tokens."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from transformers import PreTrainedTokenizerBase

from kfp_finetune.chat import IGNORED, Encoded, encode
from kfp_finetune.components.plan_preferences.pairs import Pair, PairShape, read_pair
from kfp_finetune.components.plan_preferences.settings import PairSettings
from kfp_finetune.errors import refuse
from kfp_finetune.tables import rows_at_once
from kfp_finetune.training.parts import Part

IDS = datasets.List(datasets.Value("int32"))
COLUMNS = ("tokens", "labels", "rejected_tokens", "rejected_labels")
"""Of what is written. The better answer's are named as those of any other training's rows are, so that whoever reads
held-out rows reads the answers that are wanted."""


@dataclass(frozen=True)
class PairCounts:
    """What became of a part's rows.

    Args:
        rows: Pairs that are kept.
        tokens: Their tokens on both sides, after cutting.
        label_tokens: Those of them that count.
        cut_rows: Pairs of which a side is longer than the longest sequence.
        lost_tokens: Tokens cut off from them.
        dropped_rows: Pairs left out, for whatever reason.
        empty_outputs: Those of them with an answer that says nothing.
        equal_answers: Those of them whose answers are the same.
        lost_system_prompts: Rows whose system message the chat template leaves out.
    """

    rows: int
    tokens: int
    label_tokens: int
    cut_rows: int
    lost_tokens: int
    dropped_rows: int
    empty_outputs: int
    equal_answers: int
    lost_system_prompts: int


def tokenize_pairs(
    part: Part,
    tokenizer: PreTrainedTokenizerBase,
    shape: PairShape,
    data: PairSettings,
    max_seq_len: int,
    target: Path,
) -> tuple[PairCounts, list[int]]:
    """Writes the tokens of a part's pairs.

    A pair is left out if an answer says nothing, both are the same, or nothing is left of one behind `max_seq_len`
    tokens, or nothing in which they differ.

    Args:
        part: The rows.
        tokenizer: The model's.
        shape: How they are read.
        data: The system prompt.
        max_seq_len: Tokens after which a side is cut.
        target: Directory to write.

    Returns:
        The counts, and the length of every pair's longer side in tokens before cutting.

    Raises:
        UserError: If a row does not fit, the template leaves out `new_system_prompt`, or nothing is left.
    """
    lengths: list[int] = []
    found: Counter[str] = Counter(dict.fromkeys(PairCounts.__dataclass_fields__, 0))

    def encode_batch(batch: Mapping[str, list[Any]], indices: list[int]) -> dict[str, list[list[int]]]:
        rows = [{column: values[i] for column, values in batch.items()} for i in range(len(indices))]
        pairs = [read_pair(row, part.place(i), shape, data) for row, i in zip(rows, indices, strict=True)]
        sides = zip(
            encode(tokenizer, [pair.chosen for pair in pairs]),
            encode(tokenizer, [pair.rejected for pair in pairs]),
            strict=True,
        )
        kept = []
        for pair, (chosen, rejected) in zip(pairs, sides, strict=True):
            longest = max(len(chosen.tokens), len(rejected.tokens))
            lengths.append(longest)
            row = _cut(chosen, max_seq_len) + _cut(rejected, max_seq_len)
            found.update(_count(pair, chosen, rejected, max_seq_len))
            if pair.is_blank or pair.is_equal or not _teaches(row):
                found["dropped_rows"] += 1
                continue
            found.update(_count_kept(row))
            kept.append(row)
        return {column: [row[index] for row in kept] for index, column in enumerate(COLUMNS)}

    used = shape.select(part.rows)
    kept = used.map(
        encode_batch,
        batched=True,
        batch_size=rows_at_once(used),
        with_indices=True,
        remove_columns=used.column_names,
        features=datasets.Features(dict.fromkeys(COLUMNS, IDS)),
        load_from_cache_file=False,
    )
    _check(found, lengths, part.split, data, max_seq_len)
    kept.save_to_disk(target)
    return PairCounts(**found), lengths


def _cut(side: Encoded, length: int) -> tuple[list[int], list[int]]:
    return side.tokens[:length], side.labels[:length]


def _teaches(row: Sequence[list[int]]) -> bool:
    """Whether both answers have tokens that count, and not the same ones."""
    _, labels, _, rejected_labels = row
    return labels != rejected_labels and bool(_label_tokens(labels)) and bool(_label_tokens(rejected_labels))


def _count(pair: Pair, chosen: Encoded, rejected: Encoded, max_seq_len: int) -> dict[str, int]:
    lost = [max(0, len(side.tokens) - max_seq_len) for side in (chosen, rejected)]
    return {
        "cut_rows": any(lost),
        "lost_tokens": sum(lost),
        "empty_outputs": pair.is_blank,
        "equal_answers": pair.is_equal,
        "lost_system_prompts": chosen.lacks_system,
    }


def _count_kept(row: Sequence[list[int]]) -> dict[str, int]:
    tokens, labels, rejected_tokens, rejected_labels = row
    return {
        "rows": 1,
        "tokens": len(tokens) + len(rejected_tokens),
        "label_tokens": _label_tokens(labels) + _label_tokens(rejected_labels),
    }


def _label_tokens(labels: list[int]) -> int:
    return len(labels) - labels.count(IGNORED)


def _check(found: Mapping[str, int], lengths: list[int], split: str, data: PairSettings, max_seq_len: int) -> None:
    if found["lost_system_prompts"]:
        print(f"the chat template leaves out the system message of {found['lost_system_prompts']:,} rows", flush=True)
    if found["lost_system_prompts"] and data.new_system_prompt:
        raise refuse(
            "new_system_prompt",
            f"{data.new_system_prompt!r}, which the model's chat template leaves out where an answer is last",
            "empty for this model",
            "Leave it empty, or put the text into the prompts.",
        )
    if found["equal_answers"]:
        print(f"{found['equal_answers']:,} rows of {split} have the same answer twice; left out", flush=True)
    if found["rows"]:
        return
    taken = f"all {len(lengths)} rows taken from {split}"
    if max(lengths) <= max_seq_len:
        given = f"{taken}, of which none has two answers that differ and say something"
        raise refuse(
            "dataset", given, "pairs of a better and a worse answer", "Give other rows, or correct column_map."
        )
    raise refuse(
        "max_seq_len",
        f"{max_seq_len}, which leaves no two answers that differ in {taken}",
        f"more than the prompts' length; the longest row has {max(lengths)} tokens",
        "Raise max_seq_len, or give more rows.",
    )
