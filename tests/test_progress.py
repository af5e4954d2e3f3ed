"""Progress lines: read back as written, never mistaken, and the last one is always printed."""

import json
import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kfp_finetune.progress import Progress, parse_progress, progress_printer

NUMBERS = st.floats(allow_nan=False) | st.integers(-(2**53), 2**53)
PROGRESS = st.builds(
    Progress,
    what=st.text(),
    done=st.integers(),
    total=st.integers(),
    unit=st.text(),
    eta_seconds=st.none() | NUMBERS,
    figures=st.dictionaries(st.text(), NUMBERS),
)


@given(PROGRESS, st.sampled_from(["", "    ", "[default0]:", "2026-01-01 12:00:00 ", "in progress: "]))
def test_a_line_is_read_back_whatever_stands_before_it(progress: Progress, before: str) -> None:
    line = before + progress.to_line()
    assert len(line.splitlines()) == 1
    assert parse_progress(line) == progress
    assert parse_progress(line + "\n") == progress


def test_a_loss_that_is_no_number_is_read_back() -> None:
    read = parse_progress(Progress("train", 1, 2, "step", None, {"loss": math.nan}).to_line())
    assert read is not None and math.isnan(read.figures["loss"])


@given(st.text())
def test_any_other_text_is_none(text: str) -> None:
    assert parse_progress(text) is None
    assert parse_progress(f"progress {text}") is None
    assert parse_progress(f"progress {{{text}") is None


GOOD = {"what": "train", "done": 1, "total": 2, "unit": "step", "eta_seconds": 3.5, "figures": {"loss": 1.5}}


@pytest.mark.parametrize(
    "changed",
    [
        {"what": 1},
        {"done": "1"},
        {"done": None},
        {"total": None},
        {"total": 2.5},
        {"unit": []},
        {"eta_seconds": "soon"},
        {"figures": None},
        {"figures": [1]},
        {"figures": {"loss": "low"}},
        {"figures": {"loss": None}},
        {"unknown": 1},
    ],
)
def test_a_line_with_another_field_or_type_is_none(changed: dict[str, object]) -> None:
    assert parse_progress("progress " + json.dumps(GOOD)) == Progress(**GOOD)
    assert parse_progress("progress " + json.dumps(GOOD | changed)) is None


@pytest.mark.parametrize(
    "line", ["progress {", "progress {}", 'progress {"what": "train"}', "progress [1]", "progress"]
)
def test_a_broken_line_is_none(line: str) -> None:
    assert parse_progress(line) is None


def test_a_line_cut_anywhere_is_none() -> None:
    line = "progress " + json.dumps(GOOD)
    assert [end for end in range(len(line)) if parse_progress(line[:end]) is not None] == []


def printed(capfd: pytest.CaptureFixture[str]) -> list[Progress]:
    lines = capfd.readouterr().out.splitlines()
    read = [parse_progress(line) for line in lines]
    assert None not in read
    return read


def test_the_printer_prints_the_first_and_always_the_last(capfd: pytest.CaptureFixture[str]) -> None:
    report = progress_printer("fetch", 1000, "byte", interval_seconds=1e9)
    for done in range(0, 1001):
        report(done, loss=0.5)
    assert [(line.done, line.total, line.figures) for line in printed(capfd)] == [
        (0, 1000, {"loss": 0.5}),
        (1000, 1000, {"loss": 0.5}),
    ]


def test_the_printer_prints_everything_without_an_interval(capfd: pytest.CaptureFixture[str]) -> None:
    report = progress_printer("fetch", 5, "byte", interval_seconds=0)
    for done in range(1, 6):
        report(done)
    assert [line.done for line in printed(capfd)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("done", [0, 1])
def test_work_of_no_units_is_printed_too(capfd: pytest.CaptureFixture[str], done: int) -> None:
    progress_printer("fetch", 0, "byte", interval_seconds=1e9)(done)
    assert [line.total for line in printed(capfd)] == [0]


def test_the_time_left_counts_only_what_this_process_did(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(monotonic=iter([100.0, 101.0, 110.0, 120.0]).__next__)
    monkeypatch.setattr("kfp_finetune.progress.time", clock)
    report = progress_printer("train", 100, "step", done=60)
    report(60)
    report(70)
    report(100)
    assert [line.eta_seconds for line in printed(capfd)] == [None, 30.0, 0.0]
