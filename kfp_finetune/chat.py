"""Conversations and plain text as tokens: transformers' own tokenizer and the model's own chat template.

Training so sees the very text that inference will. A token counts in the loss if it lies wholly in the text of a
message that counts; a row's first token never does, since nothing before predicts it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from kfp_finetune.errors import UserError, refuse
from kfp_finetune.turns import Marked, Outline, SilencedTurn, UnclearTurn, find_spans, outline, put_marks

IGNORED = -100
"""Label of a token that the loss leaves out; torch's cross entropy ignores it by default."""

DEFAULT_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "### {{ message['role'] | capitalize }}:\n{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}### Assistant:\n{% endif %}"
)
"""Used, and saved with the export, for a model whose tokenizer has no chat template."""

FIXED_DATE = (
    "{% macro strftime_now(format) %}{{ format"
    " | replace('%d', '26') | replace('%-d', '26') | replace('%m', '07') | replace('%b', 'Jul') | replace('%B', 'July')"
    " | replace('%Y', '2024') | replace('%y', '24') | replace('%a', 'Fri') | replace('%A', 'Friday')"
    " }}{% endmacro %}\n"
)
"""Put before a template that asks for today's date: it is always 26 July 2024, so that the tokens of a row do not
depend on the day. Llama 3.1's and 3.3's templates write that date themselves."""

TEMPLATE_ERRORS = (TemplateError, TypeError)
"""What a template raises where it refuses a conversation, or adds text to what is no text."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Args:
        role: "system", "user", "assistant" or "tool".
        content: Its text; may be empty where functions are called.
        counts: Whether its tokens count in the loss; only a user's and an assistant's can.
        tool_calls: The functions that an assistant calls, in OpenAI's form, with arguments as objects.
        more: Other keys that the template is given: a tool's `tool_call_id` and `name`, an assistant's
            `reasoning_content`.
    """

    role: str
    content: str
    counts: bool = False
    tool_calls: Sequence[Mapping[str, Any]] = ()
    more: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Conversation:
    """Turns, and the functions that the assistant can call.

    Args:
        messages: In order, at least one.
        tools: Schemas of the functions, in OpenAI's form.
        place: Which row it is, for messages.
    """

    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()
    place: str = "a conversation"


@dataclass(frozen=True)
class Encoded:
    """A conversation's or a text's tokens.

    Args:
        tokens: Ids, of a conversation as `apply_chat_template` gives them.
        labels: The id of each token that counts in the loss, `IGNORED` for the others.
        lacks_system: Whether the template leaves out the conversation's system message.
    """

    tokens: list[int]
    labels: list[int]
    lacks_system: bool = False


def load_tokenizer(model: Path) -> PreTrainedTokenizerBase:
    """A model's tokenizer, with a chat template and a padding token in any case.

    Args:
        model: The model's directory.

    Raises:
        UserError: If it cannot be loaded, or cannot say which characters a token stands for.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise refuse(
            "model", f"a tokenizer that cannot be loaded: {error}", "a tokenizer of transformers", "Save it again."
        ) from error
    if not tokenizer.is_fast or tokenizer.eos_token_id is None:
        raise refuse(
            "model", "a tokenizer without offsets or end token", "a tokenizer.json with an eos_token", "Convert it."
        )
    if tokenizer.chat_template is None:
        tokenizer.chat_template = DEFAULT_CHAT_TEMPLATE
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@dataclass(frozen=True)
class _Written:
    """A conversation as its template writes it, and where the turns that count lie."""

    text: str
    spans: list[tuple[int, int]]
    lacks_system: bool


def encode(tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Conversation]) -> list[Encoded]:
    """Tokens and labels of conversations, uncut.

    Of a turn that counts, its text counts and what ends it, but not the header before. A turn that the template writes
    otherwise once another follows counts in a row of its own, which ends with it. So each is what the model is to
    write.

    Args:
        tokenizer: From `load_tokenizer`.
        conversations: At least one message each.

    Returns:
        One row of each conversation, or more.

    Raises:
        UserError: If the template cannot write a conversation, leaves a part of it out, or writes a turn in a way that
            does not say where it begins and ends.
    """
    outlines: dict[str, Outline] = {}
    rows = [row for conversation in conversations for row in _write_rows(tokenizer, conversation, outlines)]
    encoded = tokenizer(
        [row.text for row in rows], add_special_tokens=False, return_attention_mask=False, return_offsets_mapping=True
    )
    tokens = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    return [
        Encoded(ids, _labels(ids, offsets, row.spans), row.lacks_system)
        for row, (ids, offsets) in zip(rows, tokens, strict=True)
    ]


def _write_rows(
    tokenizer: PreTrainedTokenizerBase, conversation: Conversation, outlines: dict[str, Outline]
) -> Iterator[_Written]:
    """Writes a conversation, then as far as the last turn that is written otherwise there, and so on.

    Args:
        tokenizer: From `load_tokenizer`.
        conversation: At least one message.
        outlines: Of the forms that are known; others are added.
    """
    text = render(tokenizer, conversation)
    marked = put_marks(_turns(conversation), conversation.tools)
    form = repr((marked.turns, marked.tools, [message.counts for message in conversation.messages]))
    if form not in outlines:
        outlines[form] = _outline(tokenizer, conversation, marked)
    whole = outlines[form]
    spans = find_spans(whole, marked.texts, text)
    if spans is None:
        raise _refuse_template("that rewrites what the turns say", conversation)
    if spans or not whole.others:
        yield _Written(text, spans, "system" in marked.lost(whole.marks))
    if whole.others:
        shown = conversation.messages[: whole.others[-1] + 1]
        messages = [replace(message, counts=index in whole.others) for index, message in enumerate(shown)]
        yield from _write_rows(tokenizer, replace(conversation, messages=messages), outlines)


def _labels(ids: list[int], offsets: list[tuple[int, int]], spans: list[tuple[int, int]]) -> list[int]:
    labels = [IGNORED] * len(ids)
    for begin, end in spans:
        first = bisect_left(offsets, begin, key=itemgetter(0))
        behind = bisect_right(offsets, end, key=itemgetter(1))
        labels[first:behind] = ids[first:behind]
    labels[:1] = [IGNORED] * len(labels[:1])
    return labels


def _outline(tokenizer: PreTrainedTokenizerBase, conversation: Conversation, marked: Marked) -> Outline:
    counted = [message.counts for message in conversation.messages]
    try:
        whole = outline(marked, counted, partial(_write, tokenizer), tokenizer.eos_token)
    except UnclearTurn as error:
        raise _refuse_template(f"in whose text turn {error.turn} (from 0) cannot be found", conversation) from error
    except SilencedTurn as error:
        raise refuse(
            "model",
            f"a chat template that leaves out what turn {error.turn} (from 0) of {conversation.place} thinks",
            "a template that writes what is between <think> and </think>, or `reasoning_content`",
            "Take it out of the rows, or give a model whose template has it.",
        ) from error
    except TEMPLATE_ERRORS as error:
        raise _refuse_conversation(tokenizer, conversation, error) from error
    lost = marked.lost(whole.marks)
    if lost & {"schema", "call", "tool"}:
        raise refuse(
            "model",
            f"a chat template without tools, and {conversation.place}, which has them",
            "a template that writes `tools`, `tool_calls` and the role tool",
            "Take them out of the rows, or give a model whose template has them.",
        )
    if "user" in lost or ("assistant" in lost and not any(message.tool_calls for message in conversation.messages)):
        raise _refuse_template("that leaves out what a turn says", conversation)
    return whole


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Encoded]:
    """Tokens and labels of plain texts, uncut: no chat template, and every token but the first counts in the loss.

    Args:
        tokenizer: From `load_tokenizer`; it puts its begin token before, if it does so by itself.
        texts: At least one; the end token is put behind each, and a blank one gives no tokens.
    """
    rows = []
    for text, ids in zip(texts, tokenizer(list(texts))["input_ids"], strict=True):
        if not text.strip():
            ids = []
        elif ids[-1] != tokenizer.eos_token_id:
            ids = [*ids, tokenizer.eos_token_id]
        rows.append(Encoded(ids, [IGNORED, *ids[1:]] if ids else []))
    return rows


def encode_prompt(tokenizer: PreTrainedTokenizerBase, conversation: Conversation) -> list[int]:
    """Token ids of a conversation that the model is to answer."""
    return tokenizer(render(tokenizer, conversation, prompt=True), add_special_tokens=False)["input_ids"]


def render(tokenizer: PreTrainedTokenizerBase, conversation: Conversation, prompt: bool = False) -> str:
    """A conversation as the chat template writes it, with `FIXED_DATE` for today's date.

    Args:
        tokenizer: From `load_tokenizer`.
        conversation: At least one message.
        prompt: Whether the text ends where the assistant's answer begins.

    Raises:
        UserError: If the template refuses the conversation.
    """
    try:
        return _write(tokenizer, _turns(conversation), conversation.tools, prompt)
    except TEMPLATE_ERRORS as error:
        raise _refuse_conversation(tokenizer, conversation, error) from error


def _turns(conversation: Conversation) -> list[dict[str, Any]]:
    turns = []
    for message in conversation.messages:
        turn: dict[str, Any] = {"role": message.role, "content": message.content, **message.more}
        if message.tool_calls:
            turn["tool_calls"] = list(message.tool_calls)
            if not message.content:
                del turn["content"]
        turns.append(turn)
    return turns


def _write(
    tokenizer: PreTrainedTokenizerBase,
    turns: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    prompt: bool,
) -> str:
    template = tokenizer.get_chat_template(tools=list(tools) or None)
    if "strftime_now" in template:
        template = FIXED_DATE + template
    return tokenizer.apply_chat_template(
        list(turns), list(tools) or None, chat_template=template, tokenize=False, add_generation_prompt=prompt
    )


def _refuse_conversation(tokenizer: PreTrainedTokenizerBase, conversation: Conversation, error: Exception) -> UserError:
    turns = _turns(conversation)
    if turns[0]["role"] == "system" and len(turns) > 1:
        try:
            _write(tokenizer, turns[1:], conversation.tools, False)
        except TEMPLATE_ERRORS:
            pass
        else:
            return refuse(
                "model",
                f"a chat template that takes no system message ({error}), and {conversation.place}, which has one",
                "conversations without a system message for this model",
                "Leave new_system_prompt empty, and take system messages out of the rows.",
            )
    return refuse(
        "model",
        f"a chat template that refuses {conversation.place}: {error}",
        "conversations that the model's template takes",
        "Change the row or leave it out, or give a model with another template.",
    )


def _refuse_template(what: str, conversation: Conversation) -> UserError:
    return refuse(
        "model",
        f"a chat template {what}, seen in {conversation.place}",
        "a template in whose text each turn can be found",
        "Give a model with another chat template.",
    )
