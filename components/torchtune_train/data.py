"""The tokens that planning wrote, as torchtune's recipes read them."""

from typing import Any

import datasets
from torch.utils.data import Dataset


class TokenDataset(Dataset):
    """The tokens that `tokenize` wrote, as torchtune's recipes read them.

    Args:
        tokenizer: Given by the recipe; not needed any more.
        path: Directory of one part.
        packed: Must be False; torchtune reads this key of the configuration.
    """

    def __init__(self, tokenizer: Any, path: str, packed: bool = False):
        self._rows = datasets.load_from_disk(path)
        self.tokens_read = 0

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        row = self._rows[index]
        self.tokens_read += len(row["tokens"])
        return {"tokens": row["tokens"], "labels": row["labels"]}
