"""Tokens of texts, with what the tokenizer cuts off counted."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase


def input_names(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """The inputs that a tokenizer makes for its model."""
    return list(tokenizer("a", truncation=False))


def encode_cut(
    tokenizer: "PreTrainedTokenizerBase", longest: int, *texts: Sequence[Any], **options: Any
) -> tuple["BatchEncoding", list[int]]:
    """Tokens of texts, or of pairs of texts, and how many of each were cut off.

    Args:
        tokenizer: The model's.
        longest: Tokens that are kept, special ones among them.
        texts: One sequence of texts, or two of the same length.
        options: Of the tokenizer.
    """
    whole = tokenizer(*texts, truncation=False, verbose=False, **options)
    lengths = [len(ids) for ids in whole["input_ids"]]
    if max(lengths, default=0) <= longest:
        return whole, [0] * len(lengths)
    cut = tokenizer(*texts, truncation=True, max_length=longest, **options)
    return cut, [length - len(ids) for length, ids in zip(lengths, cut["input_ids"], strict=True)]
