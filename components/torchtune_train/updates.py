"""The rows of an epoch as updates of the weights: where to begin, and what to do between two of them."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any


def _nothing() -> None:
    pass


class UpdateLoader:
    """A recipe's dataloader that can begin inside an epoch, ends with its last update and tells of each one before.

    Args:
        loader: The recipe's own, with a `LengthSampler`.
        batches: Of an update.
        updates: Of an epoch.
        done: Updates of the first epoch that were made before.
        begin: Called in the first epoch before its first batch is read.
        after_update: Called when an update is made and recorded, and no batch of the next one is read; not after the
            last of an epoch, which is saved as a whole.
    """

    def __init__(
        self,
        loader: Any,
        batches: int,
        updates: int,
        done: int = 0,
        begin: Callable[[], None] = _nothing,
        after_update: Callable[[], None] = _nothing,
    ):
        self._loader = loader
        self._batches = batches
        self._updates = updates
        self._done = done
        self._begin = begin
        self._after_update = after_update

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        done, self._done = self._done, 0
        begin, self._begin = self._begin, _nothing
        self._loader.sampler.start = done
        batches = iter(self._loader)  # It draws a number itself, so that what begins does so after it.
        begin()
        for update in range(done + 1, self._updates + 1):
            yield from islice(batches, self._batches)
            if update < self._updates:
                self._after_update()
