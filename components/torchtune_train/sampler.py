"""The order of rows: those of one update of the weights are of like length, so that little of a batch is padding."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from torch.utils.data import Sampler

WINDOW = 50
"""Updates whose rows are sorted together: the more, the less padding, and the less rows are mixed."""


class Measured(Protocol):
    """A dataset that tells what an order is made of.

    Args:
        lengths: Of its items, in tokens.
        rows_a_step: Items that each process reads for one update of the weights.
        seed: Of the order.
    """

    lengths: Sequence[int]
    rows_a_step: int
    seed: int


def order_rows(lengths: Sequence[int], rows_a_step: int, generator: np.random.Generator) -> np.ndarray:
    """Draws the updates of an epoch, each of rows of like length.

    Rows are drawn at random into windows of `WINDOW` updates. Within a window they are sorted by length and cut into
    updates, whose order is drawn in turn: which rows meet is chance but for their length, as with torchtext's
    BucketIterator and transformers' `group_by_length`. The update with the longest row is the first, so that
    too little memory shows at once. Rows that do not fill an update are left out of this epoch.

    Args:
        lengths: Of all rows, in tokens.
        rows_a_step: Rows of an update, of all processes together.
        generator: What is drawn from.

    Returns:
        Row numbers, one update in each line, the longest row of each first: int64 of shape [updates, rows_a_step].
    """
    updates = len(lengths) // rows_a_step
    drawn = generator.permutation(len(lengths))[: updates * rows_a_step]
    by_length = np.asarray(lengths)
    windows = [
        generator.permutation(window[np.argsort(-by_length[window], kind="stable")].reshape(-1, rows_a_step))
        for window in np.split(drawn, range(WINDOW * rows_a_step, len(drawn), WINDOW * rows_a_step))
    ]
    order = np.concatenate(windows)
    if updates:
        longest = int(by_length[order[:, 0]].argmax())
        order[[0, longest]] = order[[longest, 0]]
    return order


class LengthSampler(Sampler[int]):
    """Deals the rows of each update out to the processes, in the place of torchdata's StatefulDistributedSampler.

    Which rows an update has depends on neither the number of processes nor how many rows of it are read at a time.

    Args:
        dataset: With the lengths of its items.
        num_replicas: Processes that read rows of their own.
        rank: This process's number among them.
        shuffle: Whether the order is drawn; else it is the dataset's own.
        seed: Without effect: a recipe gives a fixed one, where the dataset has the user's.
    """

    def __init__(self, dataset: Measured, num_replicas: int = 1, rank: int = 0, shuffle: bool = True, seed: int = 0):
        self._dataset = dataset
        self._replicas = num_replicas
        self._rank = rank
        self._shuffle = shuffle
        self._epoch = 0
        self._updates = len(dataset.lengths) // (num_replicas * dataset.rows_a_step)
        self.start = 0
        """Updates of the next epoch that are left out since they were made before; 0 again after it."""

    def __len__(self) -> int:
        return (self._updates - self.start) * self._dataset.rows_a_step

    def set_epoch(self, epoch: int) -> None:
        """Chooses an epoch's order; the same number gives the same order.

        Args:
            epoch: From 0.
        """
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        start, self.start = self.start, 0
        for update in self._order()[start:]:
            yield from update[self._rank :: self._replicas].tolist()

    def _order(self) -> np.ndarray:
        rows = self._replicas * self._dataset.rows_a_step
        if not self._shuffle:
            return np.arange(self._updates * rows).reshape(-1, rows)
        generator = np.random.default_rng([self._dataset.seed, self._epoch])
        return order_rows(self._dataset.lengths, rows, generator)
