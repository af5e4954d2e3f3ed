"""Conversations and plain text as tokens: transformers' own tokenizer and the model's own chat template.

Training so sees the very text that inference will. A token counts in the loss if it lies wholly in the text of a
message that counts; a row's first token never does, since nothing before predicts it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from kfp_finetune.errors import refuse

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


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Args:
        role: "system", "user" or "assistant".
        content: Its text.
        counts: Whether its tokens count in the loss.
    """

    role: str
    content: str
    counts: bool = False


@dataclass(frozen=True)
class Encoded:
    """A conversation's or a text's tokens.

    Args:
        tokens: Ids, of a conversation as `apply_chat_template` gives them.
        labels: The id of each token that counts in the loss, `IGNORED` for the others.
    """

    tokens: list[int]
    labels: list[int]


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


def encode(tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Sequence[Message]]) -> list[Encoded]:
    """Tokens and labels of conversations, uncut.

    Args:
        tokenizer: From `load_tokenizer`.
        conversations: At least one message each.

    Raises:
        UserError: If the template cannot write a conversation, or writes a turn anew when another follows.
    """
    texts = [render(tokenizer, messages) for messages in conversations]
    encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    rows = []
    for messages, text, ids, offsets in zip(
        conversations, texts, encoded["input_ids"], encoded["offset_mapping"], strict=True
    ):
        spans = _spans(tokenizer, messages, text)
        labels = [
            token if any(begin <= first and last <= end for begin, end in spans) else IGNORED
            for token, (first, last) in zip(ids, offsets, strict=True)
        ]
        rows.append(Encoded(ids, [IGNORED, *labels[1:]] if labels else []))
    return rows


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


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Token ids of a conversation that the model is to answer."""
    return tokenizer(render(tokenizer, messages, prompt=True), add_special_tokens=False)["input_ids"]


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], prompt: bool = False) -> str:
    """A conversation as the chat template writes it.

    Args:
        tokenizer: From `load_tokenizer`.
        messages: In order.
        prompt: Whether the text ends where the assistant's answer begins.

    Raises:
        UserError: If the template refuses the messages.
    """
    turns = [{"role": message.role, "content": message.content} for message in messages]
    try:
        return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt)
    except TemplateError as error:
        raise refuse(
            "model", f"a chat template that refuses the rows: {error}", "a template for these roles", "Change the data."
        ) from error


def _spans(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], text: str) -> list[tuple[int, int]]:
    spans = []
    for index, message in enumerate(messages):
        if not message.counts:
            continue
        before, after = "", text
        if index > 0:
            before = render(tokenizer, messages[:index], prompt=message.role == "assistant")
        if index + 1 < len(messages):
            after = render(tokenizer, messages[: index + 1])
        if not (text.startswith(before) and text.startswith(after)):
            raise refuse(
                "model",
                f"a chat template that writes turn {index + 1} differently once another follows",
                "a template whose text only grows",
                "Give a model with another chat template.",
            )
        spans.append((len(before), len(after)))
    return spans
