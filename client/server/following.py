"""One loop that watches a run: its steps, how far they are, what they print, and how it ends."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from kfp_finetune.client.events import Event, LogLine, StepFinished, StepStarted
from kfp_finetune.client.server.connection import Server
from kfp_finetune.client.server.logs import read_log
from kfp_finetune.client.server.runs import get_run
from kfp_finetune.client.server.tasks import ENDED, Step, read_steps
from kfp_finetune.progress import parse_progress

POLL_SECONDS = 5.0
PATIENCE_SECONDS = 3600.0
"""For how long a run is followed while the server does not answer: the run goes on all the same."""

READ_SHARE = 0.1
"""The share of the time that may go into reading a log, which the server always gives from its beginning."""

LAST_LINES = 25


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Args:
        state: KFP's word: SUCCEEDED, FAILED, CANCELED, SKIPPED.
        failed_steps: The names of the steps that failed.
        last_lines: The last lines that the first of them printed.
    """

    state: str
    failed_steps: tuple[str, ...] = ()
    last_lines: tuple[str, ...] = ()

    @property
    def succeeded(self) -> bool:
        """Whether it ended well."""
        return self.state == "SUCCEEDED"


@dataclass
class _Seen:
    """What was shown of a step already."""

    lines: int = 0
    finished: bool = False
    last: list[str] = field(default_factory=list)
    next_read: float = -math.inf


def pause() -> None:
    """Waits before the server is asked again."""
    time.sleep(POLL_SECONDS)


def follow(server: Server, run_id: str, on_event: Callable[[Event], None], wait: Callable[[], None] = pause) -> Ended:
    """Watches a run to its end, also while the connection comes and goes.

    Args:
        server: Kubeflow Pipelines.
        run_id: The run.
        on_event: Called as steps begin and end, with their progress and with each line that they print.
        wait: Called before the server is asked again.

    Raises:
        UserError: If the run is not there, the credentials are refused or nothing answers for an hour.
    """
    seen: dict[str, _Seen] = {}
    while True:
        run = get_run(server, run_id, PATIENCE_SECONDS)
        steps = read_steps((run.run_details and run.run_details.task_details) or [])
        for step in steps:
            _tell(server, run_id, step, seen, on_event)
        if run.state in ENDED:
            failed = [step for step in steps if step.failed]
            last = tuple(seen[failed[0].node].last) if failed else ()
            return Ended(run.state, tuple(step.name for step in failed), last)
        wait()


def _tell(server: Server, run_id: str, step: Step, seen: dict[str, _Seen], on_event: Callable[[Event], None]) -> None:
    if step.node not in seen:
        seen[step.node] = _Seen()
        on_event(StepStarted(step.name))
    shown = seen[step.node]
    if shown.finished:
        return
    began = time.monotonic()
    if step.ended or began >= shown.next_read:
        lines = read_log(server, run_id, step) or []
        shown.next_read = time.monotonic() + (time.monotonic() - began) / READ_SHARE
        for line in lines[shown.lines :]:
            progress = parse_progress(line)
            on_event(progress or LogLine(step.name, line))
        shown.lines = max(shown.lines, len(lines))
        shown.last = [line for line in lines if line.strip() and not parse_progress(line)][-LAST_LINES:]
    if step.ended:
        shown.finished = True
        on_event(StepFinished(step.name, not step.failed))
