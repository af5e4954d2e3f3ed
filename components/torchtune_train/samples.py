"""A few held-out rows as prompts, for answers before and after training."""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from transformers import PreTrainedTokenizerBase

from kfp_finetune.chat import Conversation, Message, encode_prompt
from kfp_finetune.components.torchtune_train.conversations import Shape, conversation, plain_text
from kfp_finetune.components.torchtune_train.settings import DataSettings
from kfp_finetune.training.parts import Part

LOOKED_AT = 100
"""Rows among which samples are sought: those whose prompt fits."""


def samples(
    part: Part, tokenizer: PreTrainedTokenizerBase, shape: Shape, data: DataSettings, max_seq_len: int, count: int
) -> list[dict[str, Any]]:
    """A few rows, each as a prompt and what is expected of the model.

    The prompt of an instruct row is to be answered, so is all of a conversation that is before its last answer, and a
    plain text is to be continued from its half.

    Args:
        part: The rows, of which the first that fit are taken.
        tokenizer: The model's.
        shape: How they are read.
        data: The system prompt.
        max_seq_len: Tokens that a prompt may have.
        count: How many samples, if there are as many.

    Returns:
        Objects with `prompt`, `expected` and `prompt_ids`.
    """
    if shape.kind == "completion":
        sample = partial(_text_sample, tokenizer=tokenizer, shape=shape, max_seq_len=max_seq_len)
    else:
        sample = partial(_chat_sample, tokenizer=tokenizer, shape=shape, data=data)
    rows = enumerate(islice(shape.select(part.rows), LOOKED_AT))
    found = (sample(row, part.place(index)) for index, row in rows)
    return list(islice((entry for entry in found if 0 < len(entry["prompt_ids"]) < max_seq_len), count))


def _chat_sample(
    row: Mapping[str, Any], place: str, tokenizer: PreTrainedTokenizerBase, shape: Shape, data: DataSettings
) -> dict[str, Any]:
    return last_answer(conversation(row, place, shape, data), tokenizer)


def last_answer(asked: Conversation, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """A conversation as a sample: all of it before its last answer is the prompt.

    Args:
        asked: With an answer.
        tokenizer: The model's.
    """
    last = max(index for index, message in enumerate(asked.messages) if message.role == "assistant")
    before = asked.messages[:last]
    shown = [message for message in before if message.role != "system"]
    prompt = _said(shown[0]) if len(shown) == 1 else "\n".join(f"{turn.role}: {_said(turn)}" for turn in shown)
    return {
        "prompt": prompt,
        "expected": _said(asked.messages[last]),
        "prompt_ids": encode_prompt(tokenizer, replace(asked, messages=before)),
    }


def _said(message: Message) -> str:
    calls = [json.dumps(call["function"], ensure_ascii=False) for call in message.tool_calls]
    return "\n".join([message.content, *calls] if message.content else calls)


def _text_sample(
    row: Mapping[str, Any], place: str, tokenizer: PreTrainedTokenizerBase, shape: Shape, max_seq_len: int
) -> dict[str, Any]:
    text = plain_text(row, place, shape)
    encoded = tokenizer(text, return_offsets_mapping=True, truncation=True, max_length=max_seq_len)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    half = (len(ids) + 1) // 2
    middle, end = (offsets[half][0], offsets[-1][1]) if half < len(ids) else (len(text), len(text))
    return {"prompt": text[:middle], "expected": text[middle:end], "prompt_ids": ids[:half]}
