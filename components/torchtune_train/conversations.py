"""What kind of rows a dataset has, and its rows as conversations or plain text; a row that does not fit is refused."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import datasets

from kfp_finetune.chat import Conversation, Message
from kfp_finetune.components.torchtune_train.settings import DataSettings
from kfp_finetune.components.torchtune_train.tools import CALL_FORM, TOOL_FORM, read_calls, read_tools
from kfp_finetune.errors import Problem, UserError, refuse

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "tool": "tool",
}
"""The role that each name of one means, in OpenAI's messages and in ShareGPT's."""

KEYS_OF_KIND = {
    "instruct": frozenset({"instruction", "input", "output"}),
    "chat": frozenset({"messages", "tools"}),
    "completion": frozenset({"text"}),
}
"""What a column can hold for each kind of rows: the keys of `column_map`."""

CHAT_COLUMNS = ("messages", "conversations")
TEXT_COLUMNS = ("text", "xml")
TOOLS_COLUMN = "tools"
KEYS_OF_ROLE = {"assistant": ("tool_calls", "weight", "reasoning_content"), "tool": ("tool_call_id",)}
"""Keys of OpenAI's messages that say more than role and text do, in the roles where they are read."""
BESIDE_TEXT = ("tool_calls", "function_call", "tool_call_id", "weight", "reasoning_content")
"""All such keys; a turn of another role that has one would be misread."""

ORDER = re.compile(r"s?(u(ct+)*a)*(u(ct+)*c?)?")
"""Roles by first letter, with c for an assistant's turn that calls functions."""

LONGEST_QUOTE = 80


@dataclass(frozen=True)
class Shape:
    """How the rows of a dataset are read.

    Args:
        kind: "instruct", "chat" or "completion".
        columns: The column for each of the kind's keys that is there; see `KEYS_OF_KIND`.
    """

    kind: str
    columns: Mapping[str, str]

    @property
    def prompt(self) -> str:
        """The column with the prompt of instruct rows."""
        return self.columns["instruction" if "instruction" in self.columns else "input"]

    @property
    def context(self) -> str | None:
        """The column that goes below the prompt of instruct rows, if there is one."""
        return self.columns.get("input") if "instruction" in self.columns else None

    def select(self, rows: datasets.Dataset) -> datasets.Dataset:
        """Rows without the columns that are not used."""
        return rows.select_columns(list(dict.fromkeys(self.columns.values())))


def find_shape(names: Sequence[str], data: DataSettings) -> Shape:
    """The kind of rows that is meant, and the columns it takes.

    Args:
        names: The columns that there are.
        data: The kind and the columns that the user named, if any.

    Raises:
        UserError: If a column is not there, or a setting means nothing for this kind.
    """
    kind = data.dataset_type if data.dataset_type != "auto" else _kind_of(names, data)
    surplus = sorted(data.column_map.keys() - KEYS_OF_KIND[kind])
    problems = [
        Problem(
            f"column_map.{key}",
            repr(data.column_map[key]),
            f"for {kind} rows the keys {', '.join(sorted(KEYS_OF_KIND[kind]))}",
            "Take the key out, or set dataset_type.",
        )
        for key in surplus
    ]
    if kind == "completion" and data.new_system_prompt:
        problems.append(
            Problem("new_system_prompt", repr(data.new_system_prompt), "empty for completion rows", "Leave it empty.")
        )
    if problems:
        raise UserError(problems)
    shape = {"instruct": _instruct, "chat": _chat, "completion": _completion}[kind](names, data.column_map)
    check_columns(shape, names)
    return shape


def _kind_of(names: Sequence[str], data: DataSettings) -> str:
    for kind, keys in KEYS_OF_KIND.items():
        if data.column_map.keys() & keys:
            return kind
    if any(name in names for name in CHAT_COLUMNS):
        return "chat"
    return "completion" if len(names) == 1 and names[0] in TEXT_COLUMNS else "instruct"


def _instruct(names: Sequence[str], column_map: Mapping[str, str]) -> Shape:
    alpaca = "instruction" in column_map or ("instruction" in names and "input" not in column_map)
    keys = ["instruction", "output"] if alpaca else ["input", "output"]
    if alpaca and ("input" in column_map or "input" in names):
        keys.insert(1, "input")
    return Shape("instruct", {key: column_map.get(key, key) for key in keys})


def _chat(names: Sequence[str], column_map: Mapping[str, str]) -> Shape:
    found = next((name for name in CHAT_COLUMNS if name in names), CHAT_COLUMNS[0])
    columns = {"messages": column_map.get("messages", found)}
    if TOOLS_COLUMN in column_map or TOOLS_COLUMN in names:
        columns["tools"] = column_map.get("tools", TOOLS_COLUMN)
    return Shape("chat", columns)


def _completion(names: Sequence[str], column_map: Mapping[str, str]) -> Shape:
    found = next((name for name in TEXT_COLUMNS if name in names), TEXT_COLUMNS[0])
    return Shape("completion", {"text": column_map.get("text", found)})


def check_columns(shape: Shape, names: Sequence[str]) -> None:
    """Checks that rows have the columns of a shape.

    Args:
        shape: From `find_shape`.
        names: The columns that there are.

    Raises:
        UserError: With every column that is not there.
    """
    problems = [
        Problem(
            f"column_map.{key}",
            repr(column),
            f"one of {', '.join(names) or 'no columns'}",
            f'Name the column, {{"{key}": "..."}}, or set dataset_type; the rows were taken for {shape.kind} rows.',
        )
        for key, column in shape.columns.items()
        if column not in names
    ]
    if problems:
        raise UserError(problems)


def conversation(row: Mapping[str, Any], place: str, shape: Shape, data: DataSettings) -> Conversation:
    """A row as a conversation.

    Every assistant turn counts in the loss unless its weight is 0, and with `train_on_input` every user turn.
    `new_system_prompt` is put before, unless the conversation has a system message of its own.

    Args:
        row: Values by column.
        place: Which row it is, for messages.
        shape: Of kind "instruct" or "chat".
        data: What counts in the loss, and the system prompt.

    Raises:
        UserError: If a value is not text, or the turns do not follow one another as they must.
    """
    messages = _messages(row, place, shape) if shape.kind == "chat" else _prompt_and_answer(row, place, shape)
    if data.new_system_prompt and messages[0].role != "system":
        messages = [Message("system", data.new_system_prompt), *messages]
    if data.train_on_input:
        messages = [replace(message, counts=message.counts or message.role == "user") for message in messages]
    return Conversation(messages, _tools(row, place, shape), place)


def _prompt_and_answer(row: Mapping[str, Any], place: str, shape: Shape) -> list[Message]:
    prompt = read_text(row, shape.prompt, place)
    if shape.context is not None and row[shape.context] is not None and read_text(row, shape.context, place).strip():
        prompt = f"{prompt}\n\n{row[shape.context]}"
    return [Message("user", prompt), Message("assistant", read_text(row, shape.columns["output"], place), counts=True)]


def _tools(row: Mapping[str, Any], place: str, shape: Shape) -> list[dict[str, Any]]:
    column = shape.columns.get("tools")
    if column is None:
        return []
    tools = read_tools(row[column])
    if tools is None:
        raise refuse_row(place, f"whose {column} is {quote(row[column])}", f"a list of {TOOL_FORM}")
    return tools


def _messages(row: Mapping[str, Any], place: str, shape: Shape) -> list[Message]:
    messages = read_messages(row, shape.columns["messages"], place)
    check_order(messages, place)
    return messages


def read_messages(row: Mapping[str, Any], column: str, place: str) -> list[Message]:
    """A list of messages, in whatever order; every assistant turn counts unless its weight is 0.

    Args:
        row: Values by column.
        column: The one with the list.
        place: Which row it is, for messages.

    Raises:
        UserError: If it is no list, or one of it is no message.
    """
    value = row[column]
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise refuse_row(place, f"whose {column} is {quote(value)}", "a list of messages that is not empty")
    return [_message(turn, place, index) for index, turn in enumerate(value)]


def check_order(messages: Sequence[Message], place: str) -> None:
    """Checks that turns follow one another as in a conversation.

    Args:
        messages: At least one.
        place: Which row it is, for messages.

    Raises:
        UserError: If they do not.
    """
    order = "".join("c" if message.tool_calls else message.role[0] for message in messages)
    if not ORDER.fullmatch(order) or not set(order) & {"a", "c"}:
        roles = [message.role for message in messages]
        raise refuse_row(
            place,
            f"whose turns are {', '.join(roles[:8])}{', ...' if len(roles) > 8 else ''}",
            "one system message or none, then user and assistant in turns, with at least one answer; "
            "tools answer an assistant that calls them",
        )


def _message(turn: Any, place: str, index: int) -> Message:
    which = f"whose turn {index} (from 0)"
    if not isinstance(turn, Mapping):
        raise refuse_row(place, f"{which} is {quote(turn)}", "messages with role and content, or from and value")
    role, content = (turn["role"], turn.get("content")) if "role" in turn else (turn.get("from"), turn.get("value"))
    if not isinstance(role, str) or role not in ROLES:
        raise refuse_row(place, f"{which} has the role {quote(role)}", f"one of {', '.join(ROLES)}")
    role = ROLES[role]
    more = {key: turn[key] for key in BESIDE_TEXT if turn.get(key) not in (None, "", [], {})}
    if misread := more.keys() - set(KEYS_OF_ROLE.get(role, ())):
        raise refuse_row(place, f"{which} has {', '.join(sorted(misread))}", "turns of text alone in this role")
    calls = read_calls(more.get("tool_calls"))
    if calls is None:
        raise refuse_row(place, f"{which} has tool_calls {quote(more['tool_calls'])}", CALL_FORM)
    if more.get("weight", 1) not in (0, 1):
        raise refuse_row(place, f"{which} has the weight {quote(more['weight'])}", "0 or 1")
    if not isinstance(more.get("reasoning_content", ""), str):
        raise refuse_row(place, f"{which} has reasoning_content {quote(more['reasoning_content'])}", "text")
    if calls and content is None:
        content = ""
    if not isinstance(content, str):
        raise refuse_row(place, f"{which} says {quote(content)}", "text in every turn")
    passed_on = {"tool": ("tool_call_id", "name"), "assistant": ("reasoning_content",)}.get(role, ())
    kept = {key: turn[key] for key in passed_on if isinstance(turn.get(key), str)}
    return Message(role, content, role == "assistant" and more.get("weight", 1) == 1, calls, kept)


def plain_text(row: Mapping[str, Any], place: str, shape: Shape) -> str:
    """The text of a row of kind "completion".

    Args:
        row: Values by column.
        place: Which row it is, for messages.
        shape: Which column holds it.

    Raises:
        UserError: If it is not text.
    """
    return read_text(row, shape.columns["text"], place)


def read_text(row: Mapping[str, Any], column: str, place: str) -> str:
    """A text.

    Args:
        row: Values by column.
        column: The one with the text.
        place: Which row it is, for messages.

    Raises:
        UserError: If it is none.
    """
    value = row[column]
    if isinstance(value, str):
        return value
    raise refuse_row(place, f"whose {column} is {quote(value)}", "text in every row")


def quote(value: Any) -> str:
    """A value as a message shows it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}..."


def refuse_row(place: str, what: str, allowed: str) -> UserError:
    """The error for a row that does not fit.

    Args:
        place: Which row it is.
        what: What is wrong with it: "whose ... is ...".
        allowed: What would be accepted.
    """
    return refuse("dataset", f"{place} {what}", allowed, "Mend the row or leave it out.")
