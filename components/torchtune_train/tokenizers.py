"""The one tokenizer for every family, behind torchtune's protocol."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torchtune.data import Message
from torchtune.modules.transforms.tokenizers import ModelTokenizer

from kfp_finetune import chat


class ChatTokenizer(ModelTokenizer):
    """Tokens of conversations as the model's own chat template writes them.

    Args:
        path: The model's directory.
        max_seq_len: Tokens after which a conversation is cut; None for no limit.
    """

    def __init__(self, path: str, max_seq_len: int | None = None):
        self.tokenizer = chat.load_tokenizer(Path(path))
        self.max_seq_len = max_seq_len

    @property
    def pad_id(self) -> int:
        """The id that fills up short rows."""
        return self.tokenizer.pad_token_id

    def tokenize_messages(self, messages: list[Message], **kwargs: Any) -> tuple[list[int], list[bool]]:
        """Token ids of a whole conversation, and which of them the loss leaves out; see `chat.encode`."""
        turns = [chat.Message(message.role, message.text_content, not message.masked) for message in messages]
        row = chat.encode(self.tokenizer, [chat.Conversation(turns)])[0]
        mask = [label == chat.IGNORED for label in row.labels]
        return row.tokens[: self.max_seq_len], mask[: self.max_seq_len]

    def __call__(self, sample: Mapping[str, Any], inference: bool = False) -> Mapping[str, Any]:
        """Adds `tokens` and `mask` to a sample that has `messages`, as torchtune's datasets expect."""
        tokens, mask = self.tokenize_messages(sample["messages"])
        return {**sample, "tokens": tokens, "mask": mask}
