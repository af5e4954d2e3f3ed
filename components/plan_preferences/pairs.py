"""Rows as pairs of answers to one prompt; a row that does not fit is refused."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import datasets

from kfp_finetune.chat import Conversation, Message
from kfp_finetune.components.plan_preferences.settings import PairSettings
from kfp_finetune.components.torchtune_train.conversations import (
    check_order,
    quote,
    read_messages,
    read_text,
    refuse_row,
)
from kfp_finetune.errors import Problem, UserError

SIDES = ("chosen", "rejected")
OPTIONAL = ("prompt", "system")

SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant):")
"""What begins a turn in a transcript, as Anthropic's HH-RLHF has them."""


@dataclass(frozen=True)
class PairShape:
    """How the rows of a dataset are read.

    Args:
        columns: The column of `chosen` and of `rejected` and, where there are such, of `prompt` and of `system`.
    """

    columns: Mapping[str, str]

    def select(self, rows: datasets.Dataset) -> datasets.Dataset:
        """Rows without the columns that are not used."""
        return rows.select_columns(list(dict.fromkeys(self.columns.values())))


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt.

    Args:
        chosen: A conversation that ends with the better answer; what of it is the other's too does not count.
        rejected: The same with the worse answer.
        is_blank: Whether an answer says nothing.
        is_equal: Whether both answers are the same.
    """

    chosen: Conversation
    rejected: Conversation
    is_blank: bool
    is_equal: bool


def find_shape(names: Sequence[str], data: PairSettings) -> PairShape:
    """The columns that rows are read from.

    Args:
        names: The columns that there are.
        data: Those that the user named, if any.
    """
    columns = {side: data.column_map.get(side, side) for side in SIDES}
    columns |= {key: data.column_map.get(key, key) for key in OPTIONAL if key in data.column_map or key in names}
    return PairShape(columns)


def check_columns(shape: PairShape, names: Sequence[str]) -> None:
    """Checks that rows have the columns of a shape.

    Args:
        shape: From `find_shape`.
        names: The columns that there are.

    Raises:
        UserError: With every column that is not there.
    """
    allowed = f"one of {', '.join(names) or 'no columns'}"
    problems = [
        Problem(f"column_map.{key}", repr(column), allowed, f'Name the column that holds it: {{"{key}": "..."}}.')
        for key, column in shape.columns.items()
        if column not in names
    ]
    if problems:
        raise UserError(problems)


def read_pair(row: Mapping[str, Any], place: str, shape: PairShape, data: PairSettings) -> Pair:
    """A row as a pair.

    Args:
        row: Values by column.
        place: Which row it is, for messages.
        shape: Which columns hold what.
        data: The system prompt.

    Raises:
        UserError: If a value is neither text nor messages, the answers are not to the same prompt, or what ends a side
            is no answer.
    """
    chosen, rejected = (_side(row, shape.columns[side], place, shape) for side in SIDES)
    common = _common(chosen, rejected)
    is_equal = common == len(chosen) == len(rejected)
    if is_equal:
        common -= 1
    _check_prompt(chosen, rejected, common, place)
    if data.new_system_prompt and chosen[0].role != "system":
        system = Message("system", data.new_system_prompt)
        chosen, rejected, common = [system, *chosen], [system, *rejected], common + 1
    chosen, rejected = _counting_from(common, chosen), _counting_from(common, rejected)
    is_blank = not (_says_something(chosen) and _says_something(rejected))
    return Pair(Conversation(chosen, (), place), Conversation(rejected, (), place), is_blank, is_equal)


def _side(row: Mapping[str, Any], column: str, place: str, shape: PairShape) -> list[Message]:
    """The whole conversation that ends with one of the answers, with the row's own system message."""
    if not isinstance(row[column], str):
        turns = read_messages(row, column, place)
        before = _before(row, place, shape) if turns[0].role == "assistant" else []
    elif "prompt" in shape.columns:
        before, turns = _before(row, place, shape), [Message("assistant", row[column], counts=True)]
    else:
        before, turns = [], _transcript(row, column, place)
    messages = [*_system(row, place, shape, [*before, *turns]), *before, *turns]
    check_order(messages, place)
    if messages[-1].role != "assistant":
        raise refuse_row(
            place, f"whose {column} ends with a turn of the role {messages[-1].role}", "an assistant's turn at the end"
        )
    return messages


def _before(row: Mapping[str, Any], place: str, shape: PairShape) -> list[Message]:
    column = shape.columns.get("prompt")
    if column is None:
        return []
    if not isinstance(row[column], str):
        return read_messages(row, column, place)
    if not row[column].strip():
        raise refuse_row(place, f"whose {column} is {quote(row[column])}", "a prompt that says something")
    return [Message("user", row[column])]


def _system(row: Mapping[str, Any], place: str, shape: PairShape, turns: Sequence[Message]) -> list[Message]:
    column = shape.columns.get("system")
    if column is None or row[column] is None or turns[0].role == "system":
        return []
    text = read_text(row, column, place)
    return [Message("system", text)] if text.strip() else []


def _transcript(row: Mapping[str, Any], column: str, place: str) -> list[Message]:
    """A conversation in one text, whose turns begin with "Human:" and "Assistant:"."""
    text = read_text(row, column, place)
    before, *parts = SPEAKER.split(text)
    if before.strip() or not parts:
        raise refuse_row(
            place,
            f"whose {column} is {quote(text)}, with no column for the prompt",
            'a column prompt, messages, or a text whose turns begin with "Human:" and "Assistant:"',
        )
    turns = zip(parts[::2], parts[1::2], strict=True)
    return [
        Message("assistant", said.strip(), counts=True) if who == "Assistant" else Message("user", said.strip())
        for who, said in turns
    ]


def _common(chosen: Sequence[Message], rejected: Sequence[Message]) -> int:
    """How many turns both sides begin with."""
    pairs = zip(chosen, rejected, strict=False)
    return next((index for index, (one, other) in enumerate(pairs) if one != other), min(len(chosen), len(rejected)))


def _check_prompt(chosen: Sequence[Message], rejected: Sequence[Message], common: int, place: str) -> None:
    """That what both sides begin with is a whole prompt, and an answer the first in which they differ."""
    allowed = "the same turns up to an answer of the assistant on either side"
    if all(turn.role == "system" for turn in chosen[:common]):
        raise refuse_row(place, "whose chosen and rejected do not answer the same prompt", allowed)
    if common in (len(chosen), len(rejected)):
        raise refuse_row(place, "of whose chosen and rejected one is the beginning of the other", allowed)
    roles = {chosen[common].role, rejected[common].role}
    if roles != {"assistant"}:
        what = f"whose chosen and rejected differ in turn {common} (from 0), of the role {' and '.join(sorted(roles))}"
        raise refuse_row(place, what, allowed)


def _counting_from(common: int, turns: Sequence[Message]) -> list[Message]:
    return [replace(turn, counts=turn.counts and index >= common) for index, turn in enumerate(turns)]


def _says_something(turns: Sequence[Message]) -> bool:
    return any(turn.counts and (turn.content.strip() or turn.tool_calls) for turn in turns)
