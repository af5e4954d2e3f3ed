"""The view of a run: lines where there is no terminal, bars where there is one."""

import io

import pytest
from rich.console import Console

from kfp_finetune.client.events import Event, StepFinished, StepStarted
from kfp_finetune.client.view import RunView, note
from kfp_finetune.progress import Progress


def train(done: int, total: int = 100) -> Progress:
    return Progress("train", done, total, "step", None, {"loss": 2.25})


def shown(*events: Event, terminal: bool = False) -> str:
    output = io.StringIO()
    with RunView(Console(file=output, force_terminal=terminal, width=100)) as view:
        for event in events:
            view(event)
    return output.getvalue()


def test_without_a_terminal_steps_and_ends_of_work_are_plain_lines() -> None:
    text = shown(StepStarted("plan"), train(50), train(100), StepFinished("plan", True))
    assert text.splitlines() == [
        "plan",
        "  train: 50% step 50/100  loss 2.25",
        "  train: 100% step 100/100  loss 2.25",
        "plan done in 0 s",
    ]


def test_without_a_terminal_the_first_and_the_last_line_of_quick_work_are_shown() -> None:
    text = shown(*(train(done) for done in range(1, 101)), Progress("fetch", 1, 2, "byte"))
    assert [line[:13].rstrip() for line in text.splitlines()] == ["  train: 1% s", "  train: 100%", "  fetch: 50%"]


def test_work_of_no_units_is_no_division_by_zero() -> None:
    assert shown(Progress("fetch", 0, 0, "byte")) == "  fetch: 0% 0.0/0.0 MB\n"


def test_a_failed_step_is_told() -> None:
    assert "train failed in" in shown(StepStarted("train"), StepFinished("train", False))


def test_a_step_that_ends_without_having_begun_is_told_too() -> None:
    assert shown(StepFinished("train", True)) == "train done in 0 s\n"


def test_on_a_terminal_there_is_a_bar_that_follows_the_total() -> None:
    text = shown(StepStarted("train"), train(50), Progress("train", 50, 50, "step"), terminal=True)
    assert "100%" in text and "step 50/50" in text
    assert "\x1b[" in text


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (Progress("train", 12, 200, "step", 43.4, {"loss": 2.3149}), "step 12/200  loss 2.315  0:43 left"),
        (Progress("train", 1200, 20000, "step", 3725), "step 1,200/20,000  62:05 left"),
        (Progress("fetch", 1_500_000, 3_000_000_000, "byte", 59.6), "1.5/3,000.0 MB  1:00 left"),
        (Progress("train", 0, 200, "step", None), "step 0/200"),
        (Progress("train", 200, 200, "step", 5.0, {"loss": 1e-5}), "step 200/200  loss 1e-05"),
        (Progress("train", 1, 2, "step", None, {"loss": float("nan"), "b": 1}), "step 1/2  loss nan  b 1"),
    ],
)
def test_a_note_says_count_figures_and_time_left(progress: Progress, text: str) -> None:
    assert note(progress) == text
