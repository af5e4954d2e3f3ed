"""When it is time for the next checkpoint inside an epoch."""

import time
from collections.abc import Callable

SHARE = 0.02
"""The most of a training's time that its checkpoints inside epochs may take, as far as each process can measure it:
less than the twentieth that is meant, for what it cannot, such as the caches of processors and of the volume."""


class Interval:
    """The time between checkpoints: what was asked for, or more where checkpoints are dear.

    Args:
        minutes: That were asked for.
        share: The most of the time that checkpoints may take.
        clock: Seconds from any beginning.
    """

    def __init__(self, minutes: float, share: float = SHARE, clock: Callable[[], float] = time.monotonic):
        self._seconds = 60 * minutes
        self._share = share
        self._clock = clock
        self._since = clock()

    def is_due(self, cost: float) -> bool:
        """Whether enough time has gone by since training went on from the last checkpoint.

        Args:
            cost: Seconds that the last checkpoint took from training; 0 before the first.
        """
        return self._clock() - self._since >= max(self._seconds, cost / self._share)

    def begin(self) -> None:
        """Training goes on from a checkpoint."""
        self._since = self._clock()
