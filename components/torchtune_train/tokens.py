"""Rows become tokens once, before a GPU is asked for; training and evaluation read the very same tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from transformers import PreTrainedTokenizerBase

from kfp_finetune.chat import IGNORED, Encoded, Message, encode, encode_texts
from kfp_finetune.components.torchtune_train.conversations import Shape, conversation, plain_text
from kfp_finetune.components.torchtune_train.parts import Part
from kfp_finetune.components.torchtune_train.settings import DataSettings
from kfp_finetune.errors import refuse

IDS = datasets.List(datasets.Value("int64"))


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


def tokenize(
    part: Part, tokenizer: PreTrainedTokenizerBase, shape: Shape, data: DataSettings, max_seq_len: int, target: Path
) -> tuple[TokenCounts, list[int]]:
    """Writes the tokens of a part's rows.

    Args:
        part: The rows.
        tokenizer: The model's.
        shape: How they are read.
        data: What counts in the loss, and the system prompt.
        max_seq_len: Tokens after which a row is cut; a row that keeps nothing that counts in the loss is left out.
        target: Directory to write.

    Returns:
        The counts, and every row's length in tokens before cutting.

    Raises:
        UserError: If a row does not fit the shape, or nothing is left to train on.
    """
    lengths: list[int] = []
    empty = 0

    def encode_batch(batch: Mapping[str, list[Any]], indices: list[int]) -> dict[str, list[list[int]]]:
        nonlocal empty
        rows = [{column: values[i] for column, values in batch.items()} for i in range(len(indices))]
        encoded, without_answer = _encode_rows(rows, [part.place(i) for i in indices], tokenizer, shape, data)
        empty += without_answer
        lengths.extend(len(row.tokens) for row in encoded)
        return {
            "tokens": [row.tokens[:max_seq_len] for row in encoded],
            "labels": [row.labels[:max_seq_len] for row in encoded],
        }

    used = shape.select(part.rows)
    encoded = used.map(
        encode_batch,
        batched=True,
        with_indices=True,
        remove_columns=used.column_names,
        features=datasets.Features({"tokens": IDS, "labels": IDS}),
        load_from_cache_file=False,
    )
    kept = encoded.filter(lambda labels: _label_tokens(labels) > 0, input_columns="labels", load_from_cache_file=False)
    if len(kept) == 0:
        raise refuse(
            "max_seq_len",
            f"{max_seq_len}, which leaves no answer in any of {len(part.rows)} rows",
            f"more than the prompts' length; the longest row has {max(lengths)} tokens",
            "Raise max_seq_len." if max(lengths) > max_seq_len else "Give rows with text.",
        )
    kept.save_to_disk(target)
    return _count(kept, lengths, empty, max_seq_len), lengths


def _encode_rows(
    rows: Sequence[Mapping[str, Any]],
    places: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    shape: Shape,
    data: DataSettings,
) -> tuple[list[Encoded], int]:
    if shape.kind == "completion":
        texts = [plain_text(row, place, shape) for row, place in zip(rows, places, strict=True)]
        return encode_texts(tokenizer, texts), sum(not text.strip() for text in texts)
    conversations = [conversation(row, place, shape, data) for row, place in zip(rows, places, strict=True)]
    return encode(tokenizer, conversations), sum(map(_has_no_answer, conversations))


def _has_no_answer(messages: Sequence[Message]) -> bool:
    return not any(message.content.strip() for message in messages if message.role == "assistant")


def _label_tokens(labels: list[int]) -> int:
    return sum(label != IGNORED for label in labels)


def _count(kept: datasets.Dataset, lengths: list[int], empty: int, max_seq_len: int) -> TokenCounts:
    return TokenCounts(
        rows=len(kept),
        tokens=sum(len(tokens) for tokens in kept["tokens"]),
        label_tokens=sum(_label_tokens(labels) for labels in kept["labels"]),
        cut_rows=sum(length > max_seq_len for length in lengths),
        lost_tokens=sum(max(0, length - max_seq_len) for length in lengths),
        dropped_rows=len(lengths) - len(kept),
        empty_outputs=empty,
    )
