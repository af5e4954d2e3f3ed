"""The tokens that planning wrote, as torchtune's recipes read them."""

from typing import Any

import datasets
import torch
from torch.utils.data import Dataset

from kfp_finetune.chat import IGNORED
from kfp_finetune.components.torchtune_train.packing import pack_rows


class TokenDataset(Dataset):
    """Rows, or sequences of several rows, as tokens and labels.

    Args:
        tokenizer: Given by the recipe, for the id that fills up sequences.
        path: Directory of one part.
        packed: Whether an item is a sequence of several rows; torchtune reads this key too.
        max_seq_len: Tokens in such a sequence.
    """

    def __init__(self, tokenizer: Any, path: str, packed: bool = False, max_seq_len: int = 0):
        self._rows = datasets.load_from_disk(path)
        self._pad_id = tokenizer.pad_id
        self._max_seq_len = max_seq_len
        self._packs = pack_rows([len(tokens) for tokens in self._rows["tokens"]], max_seq_len) if packed else None
        self.tokens_read = 0

    def __len__(self) -> int:
        return len(self._rows) if self._packs is None else len(self._packs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self._packs is None:
            row = self._rows[index]
            self.tokens_read += len(row["tokens"])
            return {"tokens": row["tokens"], "labels": row["labels"]}
        rows = self._rows[self._packs[index]]
        self.tokens_read += sum(len(tokens) for tokens in rows["tokens"])
        return _packed(rows["tokens"], rows["labels"], self._max_seq_len, self._pad_id)


def _packed(tokens: list[list[int]], labels: list[list[int]], length: int, pad_id: int) -> dict[str, torch.Tensor]:
    """One sequence, in the form of `torchtune.data.padded_collate_packed`.

    The first label of each row is ignored: it would be predicted from the last token of the row before.
    """
    seq_lens = [len(row) for row in tokens]
    padding = length - sum(seq_lens)
    positions = [position for count in [*seq_lens, padding] for position in range(count)]
    joined = [label for row in labels for label in [IGNORED, *row[1:]]]
    return {
        "tokens": torch.tensor([token for row in tokens for token in row] + [pad_id] * padding),
        "labels": torch.tensor(joined + [IGNORED] * padding),
        "input_pos": torch.tensor(positions),
        "seq_lens": torch.tensor(seq_lens + ([padding] if padding else [])),
    }
