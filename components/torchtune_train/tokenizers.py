"""One tokenizer for every family: transformers' own, with the model's chat template, behind torchtune's protocol."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torchtune.data import Message
from torchtune.modules.transforms.tokenizers import ModelTokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from kfp_finetune.errors import refuse

DEFAULT_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "### {{ message['role'] | capitalize }}:\n{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}### Assistant:\n{% endif %}"
)
"""Used, and saved with the export, for a model whose tokenizer has no chat template."""


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


class ChatTokenizer(ModelTokenizer):
    """Tokens of conversations as the model's own chat template writes them.

    Args:
        path: The model's directory.
        max_seq_len: Tokens after which a conversation is cut; None for no limit.
    """

    def __init__(self, path: str, max_seq_len: int | None = None):
        self.tokenizer = load_tokenizer(Path(path))
        self.max_seq_len = max_seq_len

    @property
    def pad_id(self) -> int:
        """The id that fills up short rows."""
        return self.tokenizer.pad_token_id

    def tokenize_messages(self, messages: list[Message], **kwargs: Any) -> tuple[list[int], list[bool]]:
        """Token ids of a conversation, and which of them are masked; see `encode`."""
        tokens, mask = self.encode([messages])[0]
        return tokens[: self.max_seq_len], mask[: self.max_seq_len]

    def __call__(self, sample: Mapping[str, Any], inference: bool = False) -> Mapping[str, Any]:
        """Adds `tokens` and `mask` to a sample that has `messages`, as torchtune's datasets expect."""
        tokens, mask = self.tokenize_messages(sample["messages"])
        return {**sample, "tokens": tokens, "mask": mask}

    def encode(self, conversations: Sequence[list[Message]]) -> list[tuple[list[int], list[bool]]]:
        """Token ids of conversations, uncut, and for each token whether the loss leaves it out.

        The ids are those of `apply_chat_template`. A token counts in the loss if it lies wholly in the text of an
        unmasked message: from the end of the prompt to the end of the turn.

        Args:
            conversations: Messages of torchtune, at least one each.

        Raises:
            UserError: If the template cannot write a conversation, or writes a turn anew when another follows.
        """
        texts = [self._render(messages) for messages in conversations]
        encoded = self.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        rows = []
        for messages, text, ids, offsets in zip(
            conversations, texts, encoded["input_ids"], encoded["offset_mapping"], strict=True
        ):
            spans = self._spans(messages, text)
            mask = [not any(begin <= first and last <= end for begin, end in spans) for first, last in offsets]
            rows.append((ids, mask))
        return rows

    def prompt_ids(self, messages: list[Message]) -> list[int]:
        """Token ids of a conversation that the model is to answer."""
        return self.tokenizer(self._render(messages, prompt=True), add_special_tokens=False)["input_ids"]

    def _spans(self, messages: list[Message], text: str) -> list[tuple[int, int]]:
        spans = []
        for index, message in enumerate(messages):
            if message.masked:
                continue
            before, after = "", text
            if index > 0:
                before = self._render(messages[:index], prompt=message.role == "assistant")
            if index + 1 < len(messages):
                after = self._render(messages[: index + 1])
            if not (text.startswith(before) and text.startswith(after)):
                raise refuse(
                    "model",
                    f"a chat template that writes turn {index + 1} differently once another follows",
                    "a template whose text only grows",
                    "Give a model with another chat template.",
                )
            spans.append((len(before), len(after)))
        return spans

    def _render(self, messages: Sequence[Message], prompt: bool = False) -> str:
        from jinja2 import TemplateError

        turns = [{"role": message.role, "content": message.text_content} for message in messages]
        try:
            return self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt)
        except TemplateError as error:
            raise refuse(
                "model",
                f"a chat template that refuses the rows: {error}",
                "a template for these roles",
                "Change the data.",
            ) from error
