"""What a person sees while a run proceeds: the step, a bar with the loss and the time left."""

import math
import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from kfp_finetune.client.events import Event, LogLine, Notice, StepFinished, StepStarted
from kfp_finetune.progress import Progress

LINE_SECONDS = 10.0
"""Least seconds between two lines about the same work, where the output is no terminal."""


class RunView:
    """Shows the events of a run: bars on a terminal, a line now and then elsewhere.

    Args:
        console: Where to show them.
    """

    def __init__(self, console: Console):
        self._console = console
        self._bars = Bars(
            TextColumn("  {task.description:<16}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._began: dict[str, float] = {}
        self._shown: dict[str, float] = {}

    def __enter__(self) -> "RunView":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def __call__(self, event: Event) -> None:
        """Shows one event."""
        match event:
            case StepStarted(step):
                self._began[step] = time.monotonic()
                self._console.print(f"[bold]{step}[/bold]")
            case StepFinished(step, succeeded, seconds):
                now = time.monotonic()
                seconds = now - self._began.get(step, now) if seconds is None else seconds
                mark = "[green]done[/green]" if succeeded else "[red]failed[/red]"
                self._console.print(f"[bold]{step}[/bold] {mark} in {seconds:.0f} s")
            case LogLine(step, text):
                self._console.print(f"[dim]{step}:[/dim] {escape(text)}", highlight=False, soft_wrap=True)
            case Notice(text):
                self._console.print(f"[yellow]{escape(text)}[/yellow]", highlight=False, soft_wrap=True)
            case Progress():
                self._progress(event)

    def _progress(self, event: Progress) -> None:
        text = note(event)
        if self._console.is_terminal:
            if event.what not in self._tasks:
                self._tasks[event.what] = self._bars.add_task(event.what, total=event.total, note="")
            self._bars.update(self._tasks[event.what], completed=event.done, total=event.total, note=text)
        elif event.done >= event.total or time.monotonic() - self._shown.get(event.what, -math.inf) > LINE_SECONDS:
            self._shown[event.what] = time.monotonic()
            self._console.print(f"  {event.what}: {event.done / max(1, event.total):.0%} {text}", highlight=False)


def note(event: Progress) -> str:
    """Figures and time left, as a short text: "step 12/200  loss 2.31  0:43 left"."""
    counted = f"{event.unit} {event.done:,}/{event.total:,}"
    if event.unit == "byte":
        counted = f"{event.done / 1e6:,.1f}/{event.total / 1e6:,.1f} MB"
    figures = [f"{name.replace('_', ' ')} {_short(value)}" for name, value in event.figures.items()]
    left = []
    if event.eta_seconds and event.done < event.total:
        minutes, seconds = divmod(round(event.eta_seconds), 60)
        left = [f"{minutes}:{seconds:02d} left"]
    return "  ".join([counted, *figures, *left])


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
