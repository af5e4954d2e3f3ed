"""Rows become tokens once, before a GPU is asked for; training and evaluation read the very same tokens."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from transformers import PreTrainedTokenizerBase

from kfp_finetune.chat import IGNORED, Conversation, Encoded, encode, encode_texts
from kfp_finetune.components.torchtune_train.conversations import Shape, conversation, plain_text
from kfp_finetune.components.torchtune_train.settings import DataSettings
from kfp_finetune.errors import refuse
from kfp_finetune.tables import rows_at_once
from kfp_finetune.training.parts import Part

IDS = datasets.List(datasets.Value("int32"))


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
        lost_system_prompts: Rows whose system message the chat template leaves out.
        further_rows: Rows that end with an earlier turn of a conversation, which the template writes otherwise once
            another follows.
    """

    rows: int
    tokens: int
    label_tokens: int
    cut_rows: int
    lost_tokens: int
    dropped_rows: int
    empty_outputs: int
    lost_system_prompts: int
    further_rows: int


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
        UserError: If a row does not fit the shape, the template leaves out `new_system_prompt`, or nothing is left to
            train on.
    """
    lengths: list[int] = []
    found: Counter[str] = Counter()

    def encode_batch(batch: Mapping[str, list[Any]], indices: list[int]) -> dict[str, list[list[int]]]:
        rows = [{column: values[i] for column, values in batch.items()} for i in range(len(indices))]
        encoded, empty = _encode_rows(rows, [part.place(i) for i in indices], tokenizer, shape, data)
        lengths.extend(len(row.tokens) for row in encoded)
        cut = [(row.tokens[:max_seq_len], row.labels[:max_seq_len]) for row in encoded]
        kept = [(tokens, labels) for tokens, labels in cut if _label_tokens(labels)]
        found.update(
            rows=len(kept),
            tokens=sum(len(tokens) for tokens, _ in kept),
            label_tokens=sum(_label_tokens(labels) for _, labels in kept),
            empty_outputs=empty,
            lost_system_prompts=sum(row.lacks_system for row in encoded),
            further_rows=len(encoded) - len(rows),
        )
        return {"tokens": [tokens for tokens, _ in kept], "labels": [labels for _, labels in kept]}

    used = shape.select(part.rows)
    kept = used.map(
        encode_batch,
        batched=True,
        batch_size=rows_at_once(used),
        with_indices=True,
        remove_columns=used.column_names,
        features=datasets.Features({"tokens": IDS, "labels": IDS}),
        load_from_cache_file=False,
    )
    _check(found, lengths, part.split, data, max_seq_len)
    kept.save_to_disk(target)
    cut = [length - max_seq_len for length in lengths if length > max_seq_len]
    dropped = len(lengths) - found["rows"]
    return TokenCounts(**found, cut_rows=len(cut), lost_tokens=sum(cut), dropped_rows=dropped), lengths


def _check(found: Mapping[str, int], lengths: list[int], split: str, data: DataSettings, max_seq_len: int) -> None:
    if found["lost_system_prompts"]:
        print(f"the chat template leaves out the system message of {found['lost_system_prompts']:,} rows", flush=True)
    if found["further_rows"]:
        print(
            "the chat template writes an answer otherwise once another turn follows: "
            f"{found['further_rows']:,} of them are rows of their own",
            flush=True,
        )
    if found["lost_system_prompts"] and data.new_system_prompt:
        raise refuse(
            "new_system_prompt",
            f"{data.new_system_prompt!r}, which the model's chat template leaves out where an answer is last",
            "empty for this model",
            "Leave it empty, or put the text into the rows' first user turn.",
        )
    if found["rows"]:
        return
    taken = f"all {len(lengths)} rows taken from {split}"
    if max(lengths) <= max_seq_len:
        given = f"{taken}, none of which has an answer that counts in the loss"
        raise refuse("dataset", given, "rows with an answer", "Give answers that are not blank and not of weight 0.")
    raise refuse(
        "max_seq_len",
        f"{max_seq_len}, which leaves no answer in {taken}",
        f"more than the prompts' length; the longest row has {max(lengths)} tokens",
        "Raise max_seq_len, or give more rows.",
    )


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


def _has_no_answer(asked: Conversation) -> bool:
    answers = [message for message in asked.messages if message.role == "assistant"]
    return not any(answer.content.strip() or answer.tool_calls for answer in answers)


def _label_tokens(labels: list[int]) -> int:
    return len(labels) - labels.count(IGNORED)
