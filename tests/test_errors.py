"""Errors: a user's mistake is one message and status 2; everything else keeps its traceback."""

import subprocess
import sys

import pytest

from kfp_finetune._version import VERSION, VERSION_VARIABLE
from kfp_finetune.errors import USER_ERROR_STATUS, Problem, UserError, clear_errors, refuse

EPOCHS = Problem("epochs", "0", "a whole number from 1", "Give at least 1.")
RANK = Problem("lora_rank", "'x'", "a whole number", "Give 8.")


def test_one_problem_reads_as_a_message() -> None:
    assert str(refuse("epochs", 0, "a whole number from 1", "Give at least 1.")) == (
        "1 problem with what was given:\n  - epochs: given 0; allowed: a whole number from 1.\n      Give at least 1."
    )


def test_every_problem_is_in_the_one_message() -> None:
    error = UserError([EPOCHS, RANK])
    assert error.problems == (EPOCHS, RANK)
    assert str(error).splitlines() == [
        "2 problems with what was given:",
        "  - epochs: given 0; allowed: a whole number from 1.",
        "      Give at least 1.",
        "  - lora_rank: given 'x'; allowed: a whole number.",
        "      Give 8.",
    ]


def test_a_cause_of_several_lines_takes_one_line() -> None:
    error = refuse("dataset", "rows:\n  a: int\n\nb: text\n", "one\ntype", "Mend\nthem.")
    assert str(error).splitlines()[1:] == [
        "  - dataset: given rows: a: int b: text; allowed: one type.",
        "      Mend them.",
    ]


def test_an_error_without_a_problem_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="at least one"):
        UserError([])


def test_a_user_error_ends_with_its_message_and_status_2(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, clear_errors():
        raise UserError([EPOCHS])
    assert caught.value.code == USER_ERROR_STATUS == 2
    assert capfd.readouterr() == ("", f"error: {UserError([EPOCHS])}\n")


@pytest.mark.parametrize("error", [ValueError("x"), OSError(28, "full"), KeyboardInterrupt()])
def test_any_other_error_passes_unchanged(error: BaseException, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(type(error)) as caught, clear_errors():
        raise error
    assert caught.value is error
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("raised", "status", "traceback"), [("refuse('a', 1, '2', 'Do.')", 2, False), ("ValueError('x')", 1, True)]
)
def test_a_process_shows_a_traceback_only_for_a_crash(raised: str, status: int, traceback: bool) -> None:
    code = f"from kfp_finetune.errors import clear_errors, refuse\nwith clear_errors():\n    raise {raised}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert ("Traceback" in done.stderr) == traceback


def test_an_image_of_another_version_than_the_pipeline_s_is_refused(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VERSION_VARIABLE, VERSION)
    with clear_errors():
        pass
    monkeypatch.setenv(VERSION_VARIABLE, "0.0.7")
    with pytest.raises(SystemExit) as caught, clear_errors():
        raise AssertionError("the step began")
    assert caught.value.code == USER_ERROR_STATUS
    assert f"kfp-finetune {VERSION}, in a pipeline that was compiled from 0.0.7" in capfd.readouterr().err
