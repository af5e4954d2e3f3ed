"""What happens in a run, as whoever shows it is told."""

from dataclasses import dataclass

from kfp_finetune.progress import Progress
from kfp_finetune.results import Result


@dataclass(frozen=True)
class StepStarted:
    """A step began.

    Args:
        step: Its name.
    """

    step: str


@dataclass(frozen=True)
class StepFinished:
    """A step ended.

    Args:
        step: Its name.
        succeeded: Whether it ended well.
        seconds: How long it took, as the server has it; None if only who watched can tell.
    """

    step: str
    succeeded: bool
    seconds: float | None = None


@dataclass(frozen=True)
class LogLine:
    """A step printed a line that is no progress.

    Args:
        step: Its name.
        text: The line, without its end.
    """

    step: str
    text: str


@dataclass(frozen=True)
class Notice:
    """Something about the watching itself: a server that does not answer, logs that it does not hand out.

    Args:
        text: In words.
    """

    text: str


Event = StepStarted | StepFinished | LogLine | Result | Notice | Progress
