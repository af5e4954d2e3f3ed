"""Answers as places in windows of a context, and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kfp_finetune.components.transformers_train.tasks.columns import quote
from kfp_finetune.components.transformers_train.tasks.rows import refuse_row

OUTSIDE = -1
"""Where a token that is none of the context begins and ends."""


@dataclass(frozen=True)
class Answer:
    """A part of a context.

    Args:
        text: Of it.
        begin: Its first character.
    """

    text: str
    begin: int

    @property
    def end(self) -> int:
        """The character behind it."""
        return self.begin + len(self.text)


def read_answers(value: Any, context: str, place: str) -> list[Answer]:
    """The answers of a row.

    Args:
        value: SQuAD's lists by name, one answer, or a list of answers.
        context: Of the row.
        place: Which row it is, for messages.

    Raises:
        UserError: If one is not where it is said to be.
    """
    answers = [Answer(text, begin) for text, begin in _pairs(value, place) if text]
    for answer in answers:
        if answer.begin < 0 or context[answer.begin : answer.end] != answer.text:
            there = context[max(answer.begin, 0) :][: len(answer.text)]
            raise refuse_row(
                place,
                f"whose answer {quote(answer.text)} is not at character {answer.begin} of its context, where there is "
                f"{quote(there)}",
                "for answer_start the number, from 0, of the character (not of the byte) where the answer begins",
            )
    return answers


def _pairs(value: Any, place: str) -> list[tuple[str, int]]:
    if value is None:
        return []
    if isinstance(value, list):
        return [pair for one in value for pair in _pairs(one, place)]
    texts, begins = (
        _several(value.get(key)) if isinstance(value, dict) else [None] for key in ("text", "answer_start")
    )
    pairs = list(zip(texts, begins, strict=False))
    if len(texts) != len(begins) or any(type(text) is not str or type(begin) is not int for text, begin in pairs):
        raise refuse_row(place, f"whose answers are {quote(value)}", "as many of text as of answer_start")
    return pairs


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def tokens_of(answer: Answer, begins: Sequence[int], ends: Sequence[int]) -> tuple[int, int] | None:
    """The first and the last token of an answer; None if it does not lie wholly in the window.

    Args:
        answer: In the context.
        begins: Each token's first character in the context; `OUTSIDE` for tokens of something else.
        ends: The character behind each token.
    """
    inside = [token for token, begin in enumerate(begins) if begin != OUTSIDE]
    if not inside or begins[inside[0]] > answer.begin or ends[inside[-1]] < answer.end:
        return None
    touching = [token for token in inside if ends[token] > answer.begin and begins[token] < answer.end]
    return (touching[0], touching[-1]) if touching else None


def best_span(start: np.ndarray, end: np.ndarray, inside: np.ndarray, longest: int) -> tuple[float, int, int] | None:
    """The likeliest first and last token, with their score; None if no token is allowed.

    Args:
        start: Logits of each token to be the first.
        end: Of each to be the last.
        inside: Which tokens are allowed.
        longest: Tokens that an answer has at most.
    """
    (places,) = np.nonzero(inside)
    if not len(places):
        return None
    scores = start[places][:, None] + end[places][None, :]
    apart = places[None, :] - places[:, None]
    scores = np.where((apart >= 0) & (apart < longest), scores, -np.inf)
    first, last = np.unravel_index(int(np.argmax(scores)), scores.shape)
    return float(scores[first, last]), int(places[first]), int(places[last])
