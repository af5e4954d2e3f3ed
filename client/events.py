"""What happens in a run, as whoever shows it is told."""

from dataclasses import dataclass

from kfp_finetune.progress import Progress


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
    """

    step: str
    succeeded: bool


@dataclass(frozen=True)
class LogLine:
    """A step printed a line that is no progress.

    Args:
        step: Its name.
        text: The line, without its end.
    """

    step: str
    text: str


Event = StepStarted | StepFinished | LogLine | Progress
