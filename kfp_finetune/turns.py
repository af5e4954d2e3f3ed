"""Where each turn lies in the text that a chat template writes.

A template is a program, and its text does not only grow: Mistral's puts the system prompt into the last user turn,
Llama 3.1's trims what turns say. So a conversation is written once more with marks in place of what is said. What lies
between the marks is the template's own and alike in both texts; where a turn begins and ends between two marks is seen
where the marked conversation is cut off there. Conversations of one form share one outline.

Some templates write an answer otherwise once another turn follows: Qwen 3's leaves out what was thought, and with it
the tags around. Such a turn is written as a model is to write it only where the conversation ends with it.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MARK = re.compile(r"(kQ\d+Qk)")
THOUGHT = re.compile(r"(<think>|</think>)")
"""The tags around what a model thinks before it answers; templates that know them take the text apart there."""

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


class SilencedTurn(ValueError):
    """A template leaves out what was thought in a turn, even where the conversation ends with it.

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
        turns: Each turn's content, what was thought before, and the names of the functions it calls are marks.
        tools: Each function's name is a mark.
        texts: What each mark stands for.
        sources: Where each mark's text was: a turn's role, "thought" for what an assistant thought, "call" for a name
            in a call, "schema" for one in the tools.
    """

    turns: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    texts: dict[str, str]
    sources: dict[str, str]

    def lost(self, marks: Sequence[str]) -> set[str]:
        """The sources of which a text is not among the marks that a template wrote."""
        return {source for mark, source in self.sources.items() if mark not in marks}

    def thoughts(self, turn: int) -> set[str]:
        """The marks of what was thought in a turn."""
        said = f"{self.turns[turn].get('content', '')}{self.turns[turn].get('reasoning_content', '')}"
        return {mark for mark in MARK.findall(said) if self.sources[mark] == "thought"}


@dataclass(frozen=True)
class Outline:
    """What a template writes around the texts of a conversation.

    Args:
        literals: The template's own text before, between and behind the marks.
        marks: The marks as they follow one another, one fewer than literals.
        spans: Where each turn that counts begins and ends, but for the others.
        others: Turns that count and are not written as where the conversation ends with them.
    """

    literals: list[str]
    marks: list[str]
    spans: list[tuple[Place, Place]]
    others: list[int]

    @property
    def end(self) -> Place:
        """The place behind the whole."""
        return len(self.marks), len(self.literals[-1])

    def between(self, begin: Place, end: Place) -> str:
        """The literals and marks between two places."""
        (first, begins), (last, ends) = begin, end
        if first == last:
            return self.literals[first][begins:ends]
        pairs = zip(self.marks[first : last - 1], self.literals[first + 1 : last], strict=True)
        middle = "".join(mark + literal for mark, literal in pairs)
        return self.literals[first][begins:] + middle + self.marks[last - 1] + self.literals[last][:ends]


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

    def mark_answer(text: str) -> str:
        parts = THOUGHT.split(text) if "</think>" in text else [text]
        for index in range(0, len(parts), 2):  # Between them are the tags.
            parts[index] = mark("thought" if "</think>" in parts[index + 1 : index + 2] else "assistant", parts[index])
        return "".join(parts)

    marked = []
    for turn in turns:
        copy = dict(turn)
        if "content" in turn:
            copy["content"] = (
                mark_answer(turn["content"]) if turn["role"] == "assistant" else mark(turn["role"], turn["content"])
            )
        if "reasoning_content" in turn:
            copy["reasoning_content"] = mark("thought", turn["reasoning_content"])
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
        UnclearTurn: If the last turn counts and cannot be found.
        SilencedTurn: If what was thought in a turn that counts is not written even where the conversation ends with it.
    """
    whole = _read(write(marked.turns, marked.tools, False))
    behind = (0, 0)
    for index in [index for index, counts in enumerate(counted) if counts]:
        try:
            begin, end = _locate(marked, index, write, end_token, whole)
            if not behind <= begin <= end:
                raise UnclearTurn(index)
        except UnclearTurn:
            if index + 1 == len(counted):
                raise
            whole.others.append(index)
            continue
        whole.spans.append((begin, end))
        behind = end
    return whole


def _read(written: str) -> Outline:
    pieces = MARK.split(written)
    return Outline(pieces[::2], pieces[1::2], [], [])


def _locate(marked: Marked, index: int, write: Write, end_token: str, whole: Outline) -> tuple[Place, Place]:
    turns, tools = marked.turns, marked.tools
    first = int(turns[0]["role"] == "system" and bool(marked.lost(whole.marks) & {"system"}))
    alone, end = whole, whole.end
    if index + 1 < len(turns):
        alone = _read(write(turns[first : index + 1], tools, False))
        end = _end_of(alone, whole, end_token, index)
    if turns[index]["role"] != "assistant":
        return _begin_of_content(turns[index]["content"], end, whole, index), end
    if not marked.thoughts(index) <= set(alone.marks):
        raise SilencedTurn(index)
    before = _read(write(turns[first:index], tools, True) if index > first else "")
    begin = _end_of(before, whole, end_token, index)
    if alone is not whole:
        asked = alone.between(_end_of(before, alone, end_token, index), alone.end)
        if whole.between(begin, end) not in (asked, asked.removesuffix(end_token)):
            raise UnclearTurn(index)
    return begin, end


def _end_of(part: Outline, whole: Outline, end_token: str, index: int) -> Place:
    """Where in the whole a part of it ends."""
    literal, tail = 0, part.literals[-1]
    if part.marks:
        last = part.marks[-1]
        places = [number for number, mark in enumerate(whole.marks, start=1) if mark == last]
        if len(places) < part.marks.count(last):
            raise UnclearTurn(index)
        literal = places[part.marks.count(last) - 1]
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
    yield text.strip("\n")
    yield text.lstrip("\n")
    yield json.dumps(text, ensure_ascii=False)[1:-1]
