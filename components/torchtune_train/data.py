"""The tokens that planning wrote, as torchtune's recipes read them."""

from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import Dataset

from kfp_finetune.chat import IGNORED
from kfp_finetune.components.torchtune_train.packing import pack_rows, pair_lengths, row_lengths


class TokenDataset(Dataset):
    """Rows, or sequences of several rows, as tokens and labels.

    Args:
        tokenizer: Given by the recipe, for the id that fills up sequences.
        path: Directory of one part.
        packed: Whether an item is a sequence of several rows; torchtune reads this key too.
        max_seq_len: Tokens in such a sequence.
        rows_a_step: Items that each process reads for one update of the weights; see `sampler.Measured`.
        seed: Of their order.
    """

    def __init__(
        self,
        tokenizer: Any,
        path: str,
        packed: bool = False,
        max_seq_len: int = 0,
        rows_a_step: int = 1,
        seed: int = 0,
    ):
        self._rows = datasets.load_from_disk(path).with_format("numpy")
        self._pad_id = tokenizer.pad_id
        self._max_seq_len = max_seq_len
        lengths = row_lengths(self._rows)
        self._packs = pack_rows(lengths, max_seq_len) if packed else None
        self.lengths: Sequence[int] = lengths if self._packs is None else [max_seq_len] * len(self._packs)
        self.rows_a_step = rows_a_step
        self.seed = seed
        self.tokens_read = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self._packs is None:
            row = self._rows[index]
            self.tokens_read += len(row["tokens"])
            return {"tokens": row["tokens"], "labels": row["labels"]}
        rows = self._rows[self._packs[index]]
        self.tokens_read += sum(len(tokens) for tokens in rows["tokens"])
        return _packed(rows["tokens"], rows["labels"], self._max_seq_len, self._pad_id)


class PairDataset(Dataset):
    """Pairs of a better and a worse answer as tokens and labels, as torchtune's `padded_collate_dpo` wants them.

    Args:
        tokenizer: Given by the recipe; without effect.
        path: Directory of one part.
        rows_a_step: Items that each process reads for one update of the weights; see `sampler.Measured`.
        seed: Of their order.
    """

    def __init__(self, tokenizer: Any, path: str, rows_a_step: int = 1, seed: int = 0):
        self._rows = datasets.load_from_disk(path).with_format("numpy")
        self.lengths: Sequence[int] = pair_lengths(self._rows)
        self.rows_a_step = rows_a_step
        self.seed = seed
        self.tokens_read = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self._rows[index]
        self.tokens_read += len(row["tokens"]) + len(row["rejected_tokens"])
        return {
            "chosen_input_ids": row["tokens"],
            "chosen_labels": row["labels"],
            "rejected_input_ids": row["rejected_tokens"],
            "rejected_labels": row["rejected_labels"],
        }


def _packed(
    tokens: Sequence[np.ndarray], labels: Sequence[np.ndarray], length: int, pad_id: int
) -> dict[str, torch.Tensor]:
    """One sequence, in the form of `torchtune.data.padded_collate_packed`.

    The first label of each row is ignored: it would be predicted from the last token of the row before.
    """
    seq_lens = [len(row) for row in tokens]
    padding = length - sum(seq_lens)
    joined, wanted = np.full(length, pad_id), np.full(length, IGNORED)
    joined[: length - padding], wanted[: length - padding] = np.concatenate(tokens), np.concatenate(labels)
    wanted[np.cumsum([0, *seq_lens[:-1]])] = IGNORED
    parts = [*seq_lens, padding] if padding else seq_lens
    return {
        "tokens": torch.from_numpy(joined),
        "labels": torch.from_numpy(wanted),
        "input_pos": torch.from_numpy(np.concatenate([np.arange(count) for count in parts])),
        "seq_lens": torch.tensor(parts),
    }
