"""One loop that watches a run: its steps, how far they are, what they print, and how it ends."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import kfp_server_api

from kfp_finetune.client.events import Event, LogLine, Notice, StepFinished, StepStarted
from kfp_finetune.client.server.calls import AwayError, LoginError
from kfp_finetune.client.server.connection import Server
from kfp_finetune.client.server.logs import read_log
from kfp_finetune.client.server.runs import get_run
from kfp_finetune.client.server.tasks import ENDED, Step, read_steps
from kfp_finetune.errors import UserError
from kfp_finetune.progress import parse_progress
from kfp_finetune.results import parse_result

POLL_SECONDS = 5.0
PATIENCE_SECONDS = 3600.0
"""For how long a run is followed while the server does not answer: the run goes on all the same."""

LOGIN_SECONDS = 60.0
"""For how long a run is followed while the credentials are refused: a token may be about to be renewed."""

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
    last_line: str = ""
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
        UserError: If the run is not there, the credentials are refused for a minute or nothing answers for an hour.
    """
    seen: dict[str, _Seen] = {}
    while True:
        run = _ask(server, run_id, on_event, wait)
        steps = read_steps((run.run_details and run.run_details.task_details) or [])
        for step in steps:
            _tell(server, run, step, seen, on_event)
        if run.state in ENDED:
            failed = [step for step in steps if step.failed]
            last = tuple(seen[failed[0].node].last) if failed else ()
            return Ended(run.state, tuple(step.name for step in failed), last)
        wait()


def _ask(
    server: Server, run_id: str, on_event: Callable[[Event], None], wait: Callable[[], None]
) -> kfp_server_api.V2beta1Run:
    """The run, however long it takes to be told."""
    began = time.monotonic()
    told = False
    while True:
        try:
            run = get_run(server, run_id, patience=0)
        except (AwayError, LoginError) as error:
            longest = LOGIN_SECONDS if isinstance(error, LoginError) else PATIENCE_SECONDS
            if time.monotonic() - began >= longest:
                raise
            if not told:
                problem = error.problems[0]
                on_event(Notice(f"{problem.what}: {problem.given}; the run goes on, and is asked for again"))
            told = True
            wait()
            continue
        if told:
            on_event(Notice("the server answers again"))
        return run


def _tell(
    server: Server,
    run: kfp_server_api.V2beta1Run,
    step: Step,
    seen: dict[str, _Seen],
    on_event: Callable[[Event], None],
) -> None:
    if step.node not in seen:
        seen[step.node] = _Seen()
        on_event(StepStarted(step.name))
    shown = seen[step.node]
    if shown.finished:
        return
    began = time.monotonic()
    if step.ended or began >= shown.next_read:
        lines = _read(server, run, step, on_event)
        shown.next_read = time.monotonic() + (time.monotonic() - began) / READ_SHARE
        for line in lines[_first_new(lines, shown) :]:
            on_event(parse_progress(line) or parse_result(line) or LogLine(step.name, line))
        if lines:
            shown.lines, shown.last_line = len(lines), lines[-1]
        words = (line for line in lines if line.strip() and not parse_progress(line) and not parse_result(line))
        shown.last = list(words)[-LAST_LINES:]
    if step.ended:
        shown.finished = True
        on_event(StepFinished(step.name, not step.failed, step.seconds))


def _read(server: Server, run: kfp_server_api.V2beta1Run, step: Step, on_event: Callable[[Event], None]) -> list[str]:
    try:
        return read_log(server, run, step) or []
    except UserError as error:  # no right to read logs: the steps are told all the same
        on_event(Notice(f"no lines of {step.name}: {error.problems[0].given}"))
        return []


def _first_new(lines: list[str], shown: _Seen) -> int:
    """Where the lines begin that were not shown; a log that was cut at its beginning holds the last one elsewhere."""
    if not shown.lines or (len(lines) >= shown.lines and lines[shown.lines - 1] == shown.last_line):
        return shown.lines
    if shown.last_line in lines:
        return len(lines) - lines[::-1].index(shown.last_line)
    return 0
