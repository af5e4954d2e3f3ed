"""Where each turn lies in the text that a chat template writes.

A template is a program, and its text does not only grow: Mistral's puts the system prompt into the last user turn,
Llama 3.1's trims what turns say. So a conversation is written once more with marks in place of what is said. What lies
between the marks is the template's own and alike in both texts; where a turn begins and ends between two marks is seen
where the marked conversation is cut off there. Conversations of one form share one outline.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MARK = re.compile(r"(kQ\d+Qk)")

Write = Callable[[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]], bool], str]
"""Writes turns and tools as text; the last argument says whether the text ends where the assistant's answer begins."""

Place = tuple[int, int]
"""A place in an outline: a literal's number, and a number of its characters."""


class UnclearTurn(ValueError):
    """Where a turn begins or ends cannot be told.

    Args:
        turn: Its number, from 0.
    """

    def __init__(self, turn: int):
        self.turn = turn
        super().__init__(f"turn {turn}")


@dataclass(frozen=True)
class Marked:
    """A conversation with marks in place of what is said; the same text in the same role has the same mark.

    Args:
        turns: Each turn's content and the names of the functions it calls are marks.
        tools: Each function's name is a mark.
        texts: What each mark stands for.
        sources: Where each mark's text was: a turn's role, "call" for a name in a call, "schema" for one in the tools.
    """

    turns: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    texts: dict[str, str]
    sources: dict[str, str]

    def lost(self, marks: Sequence[str]) -> set[str]:
        """The sources of which a text is not among the marks that a template wrote."""
        return {source for mark, source in self.sources.items() if mark not in marks}


@dataclass(frozen=True)
class Outline:
    """What a template writes around the texts of a conversation.

    Args:
        literals: The template's own text before, between and behind the marks.
        marks: The marks as they follow one another, one fewer than literals.
        spans: Where each turn that counts begins and ends.
    """

    literals: list[str]
    marks: list[str]
    spans: list[tuple[Place, Place]]


def put_marks(turns: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> Marked:
    """A conversation with marks in place of what is said.

    Args:
        turns: In OpenAI's form; a content is a text or absent. What is blank gets no mark: templates leave it out, or
            trim what is beside it.
        tools: Function schemas in OpenAI's form.
    """
    marks: dict[tuple[str, str], str] = {}

    def mark(source: str, text: str) -> str:
        return marks.setdefault((source, text), f"kQ{len(marks)}Qk") if text.strip() else text

    def rename(entry: Mapping[str, Any], source: str) -> dict[str, Any]:
        function = entry["function"]
        return {**entry, "function": {**function, "name": mark(source, function["name"])}}

    marked = []
    for turn in turns:
        copy = dict(turn)
        if "content" in turn:
            copy["content"] = mark(turn["role"], turn["content"])
        if "tool_calls" in turn:
            copy["tool_calls"] = [rename(call, "call") for call in turn["tool_calls"]]
        marked.append(copy)
    renamed = [rename(tool, "schema") for tool in tools]
    texts = {name: text for (_, text), name in marks.items()}
    return Marked(marked, renamed, texts, {name: source for (source, _), name in marks.items()})


def outline(marked: Marked, counted: Sequence[bool], write: Write, end_token: str) -> Outline:
    """What a template writes around the texts of a marked conversation.

    An assistant's turn begins where the template's prompt for an answer ends, a user's with its content, if that is not
    blank. Each ends where the conversation would if it were cut off behind it, without an end token that closes it.

    Args:
        marked: From `put_marks`.
        counted: Which turns' places are asked for; only users' and assistants' can be.
        write: The template.
        end_token: The tokenizer's end token.

    Raises:
        UnclearTurn: If the template writes a turn that counts differently once another follows.
    """
    turns, tools = marked.turns, marked.tools
    pieces = MARK.split(write(turns, tools, False))
    whole = Outline(pieces[::2], pieces[1::2], [])
    first = int(turns[0]["role"] == "system" and bool(marked.lost(whole.marks) & {"system"}))
    behind = (0, 0)
    for index, turn in enumerate(turns):
        if not counted[index]:
            continue
        end = (len(whole.marks), len(whole.literals[-1]))
        if index + 1 < len(turns):
            end = _end_of(write(turns[first : index + 1], tools, False), whole, end_token, index)
        if turn["role"] != "assistant":
            begin = _begin_of_content(turn["content"], end, whole, index)
        else:
            before = write(turns[first:index], tools, True) if index > first else ""
            begin = _end_of(before, whole, end_token, index)
        if not behind <= begin <= end:
            raise UnclearTurn(index)
        whole.spans.append((begin, end))
        behind = end
    return whole


def _end_of(written: str, whole: Outline, end_token: str, index: int) -> Place:
    pieces = MARK.split(written)
    marks, tail = pieces[1::2], pieces[-1]
    literal = 0
    if marks:
        places = [number for number, mark in enumerate(whole.marks, start=1) if mark == marks[-1]]
        if len(places) < marks.count(marks[-1]):
            raise UnclearTurn(index)
        literal = places[marks.count(marks[-1]) - 1]
    for text in (tail, tail.removesuffix(end_token)):
        if whole.literals[literal].startswith(text):
            return literal, len(text)
    raise UnclearTurn(index)


def _begin_of_content(mark: str, end: Place, whole: Outline, index: int) -> Place:
    """Where a turn's content begins, with a blank before it: tokenizers join one with the first word."""
    if not mark.strip():
        return end
    literal, _ = end
    if literal == 0 or whole.marks[literal - 1] != mark:
        raise UnclearTurn(index)
    return literal - 1, len(whole.literals[literal - 1].rstrip(" "))


def find_spans(whole: Outline, texts: Mapping[str, str], written: str) -> list[tuple[int, int]] | None:
    """Where the turns that count lie in a conversation as the template writes it.

    Args:
        whole: Its outline.
        texts: What each mark stands for.
        written: The conversation as the template writes it.

    Returns:
        Each turn's first character and the one behind its last, or None if the text does not follow the outline.
    """
    starts = [0]
    position = len(whole.literals[0])
    if not written.startswith(whole.literals[0]):
        return None
    for mark, literal in zip(whole.marks, whole.literals[1:], strict=True):
        for form in _forms(texts[mark]):
            start = position + len(form)
            if written.startswith(form, position) and written.startswith(literal, start):
                break
        else:
            return None
        starts.append(start)
        position = start + len(literal)
    if position != len(written):
        return None
    return [(starts[first] + begin, starts[last] + end) for (first, begin), (last, end) in whole.spans]


def _forms(text: str) -> Iterator[str]:
    """What templates make of a text: they leave, trim or quote it."""
    yield text
    yield text.strip()
    yield text.rstrip()
    yield json.dumps(text, ensure_ascii=False)[1:-1]
