"""Local runs: what the lines of KFP's local runner tell, and which values it would corrupt."""

from pathlib import Path
from typing import Any

import pytest

from kfp_finetune.client.events import Event, StepFinished, StepStarted
from kfp_finetune.client.local import (
    ANSI,
    LocalRun,
    follow,
    laptop_arguments,
    run_local,
)
from kfp_finetune.client.parameters import Parameter, read_parameters
from kfp_finetune.errors import Problem, UserError
from kfp_finetune.progress import Progress

PIPELINE = Path(__file__).parents[2] / "pipelines" / "torchtune_finetune" / "pipeline.yaml"
PARAMETERS = {
    name: Parameter(name, "STRING", "", "")
    for name in ("workspace", "create_volume", "keep_volume", "dataset", "model")
}
RULE = "-" * 80
EXECUTOR = """\
[KFP Executor 2026-01-02 03:04:05,067 INFO]: Looking for component `step` in --component_module_path `/tmp/x/y.py`
[KFP Executor 2026-01-02 03:04:05,068 INFO]: Got executor_input:
{
    "inputs": {
        "parameterValues": {
            "uri": "error: 1 problem with what was given:"
        }
    }
}"""
CRASH = """\
Traceback (most recent call last):
  File "<frozen runpy>", line 198, in _run_module_as_main
  File "/tmp/tmp.DBE7EMRgUj/ephemeral_component.py", line 13, in train
    raise RuntimeError("boom")
RuntimeError: boom"""
REFUSAL = UserError([Problem("dataset", "/nope", "a path\nthat exists", "Check it."), Problem("b", "1", "2", "Do.")])


def step(name: str, status: str, *printed: str) -> list[str]:
    """The lines about a step, as KFP prints them."""
    level = "INFO" if status == "SUCCESS" else "ERROR"
    lines = [line for text in (EXECUTOR, *printed, "") for line in text.split("\n")]
    return [
        f"03:04:05.015 - INFO - Executing task '{name}'",
        "03:04:05.015 - INFO - Streamed logs:",
        "",
        *("    " + line for line in lines),
        "",
        f"03:04:06.015 - {level} - Task '{name}' finished with status {status}",
        *([f"03:04:06.015 - INFO - Task '{name}' has no outputs"] if status == "SUCCESS" else []),
        RULE,
    ]


def pipeline(status: str, *steps: list[str], inner: str = "") -> list[str]:
    """The lines of a whole run."""
    last = f"03:04:07.000 - INFO - Pipeline 'torchtune-finetune' finished with status {status}{inner}"
    return [
        "03:04:05.000 - INFO - Running pipeline: 'torchtune-finetune'",
        RULE,
        *(line for lines in steps for line in lines),
        last,
    ]


def watch(lines: list[str]) -> tuple[LocalRun, list[Event]]:
    events: list[Event] = []
    return follow(lines, events.append), events


def test_a_good_run_tells_its_steps_and_progress_in_order() -> None:
    progress = Progress("train", 3, 10, "step", 4.5, {"loss": 2.25})
    run, events = watch(
        pipeline(
            "SUCCESS",
            step("initialize-dataset", "SUCCESS", "dataset /d: 1 files, 8 bytes"),
            step("torchtune-train-2", "SUCCESS", "before", progress.to_line(), "[rank0]:" + progress.to_line()),
        )
    )
    assert run.succeeded and run.refusal == "" and run.failed_step == ""
    assert events == [
        StepStarted("initialize-dataset"),
        StepFinished("initialize-dataset", True),
        StepStarted("torchtune-train-2"),
        progress,
        progress,
        StepFinished("torchtune-train-2", True),
    ]


def test_a_refusal_is_the_whole_message_of_the_step_and_nothing_else() -> None:
    run, events = watch(
        pipeline(
            "FAILURE",
            step("initialize-dataset", "FAILURE", "looking", f"error: {REFUSAL}"),
            step("delete-volume", "SUCCESS", "volume kept"),
            inner=". Inner task failed: 'initialize-dataset' inside 'condition-2' inside 'exit-handler-1'.",
        )
    )
    assert run.refusal == f"error: {REFUSAL}"
    assert not run.succeeded and run.failed_step == "initialize-dataset"
    assert run.last_lines[-1] == "looking"
    assert events[1:] == [
        StepFinished("initialize-dataset", False),
        StepStarted("delete-volume"),
        StepFinished("delete-volume", True),
    ]


@pytest.mark.parametrize("printed", ["error: command 'gcc' failed", "error: 3 files", "ERROR: x", "  error: y"])
def test_a_crash_is_no_refusal_whatever_it_printed(printed: str) -> None:
    inner = ". Inner task failed: 'train' inside 'inner-pipe' inside 'exit-handler-1'."
    run, _ = watch(
        pipeline(
            "FAILURE",
            step("plan", "SUCCESS", "planned"),
            step("train", "FAILURE", printed, CRASH),
            step("bye", "SUCCESS", "bye"),
            inner=inner,
        )
    )
    assert not run.succeeded and run.refusal == ""
    assert run.failed_step == "train"
    assert run.last_lines[-6:] == (printed, *CRASH.split("\n"))
    assert not {"planned", "bye"} & set(run.last_lines)


def test_the_last_lines_are_those_of_the_first_step_that_failed_and_not_too_many() -> None:
    many = "\n".join(f"line {number}" for number in range(100))
    run, _ = watch(
        pipeline(
            "FAILURE", step("first", "SUCCESS", "x"), step("second", "FAILURE", many), step("third", "FAILURE", "y")
        )
    )
    assert run.failed_step == "second"
    assert run.last_lines == tuple(f"line {number}" for number in range(75, 100))


def test_a_step_that_succeeds_at_the_second_attempt_does_not_fail_the_run() -> None:
    run, events = watch(pipeline("SUCCESS", step("train", "FAILURE", CRASH), step("train", "SUCCESS", "fine")))
    assert run.succeeded
    assert events[-1] == StepFinished("train", True)


def test_a_run_that_fails_outside_any_step_has_failed() -> None:
    run, _ = watch(pipeline("FAILURE", step("plan", "SUCCESS", "x"), ["ValueError: cannot evaluate the condition"]))
    assert not run.succeeded and run.failed_step == ""
    assert run.last_lines[-1] == "ValueError: cannot evaluate the condition"


def test_a_run_of_a_single_step_without_a_pipeline_ends_as_the_step_does() -> None:
    assert watch(step("alone", "SUCCESS"))[0].succeeded
    assert not watch(step("alone", "FAILURE"))[0].succeeded


def test_colours_are_taken_out() -> None:
    assert ANSI.sub("", "Executing task \x1b[96m'crash'\x1b[0m with \x1b[1;91mFAILURE\x1b[0m") == (
        "Executing task 'crash' with FAILURE"
    )


def test_a_laptop_needs_no_volume_and_no_gpu() -> None:
    assert laptop_arguments(PARAMETERS, {"dataset": "/d"}, Path("/w")) == {
        "create_volume": False,
        "keep_volume": True,
        "workspace": "/w",
        "dataset": "/d",
    }


def test_what_was_given_goes_before_what_a_laptop_needs() -> None:
    given = {"keep_volume": False, "workspace": "/mine"}
    assert laptop_arguments(PARAMETERS, given, Path("/w")) == {"create_volume": False, **given}


@pytest.mark.parametrize(
    "value", ["/usr/lib/python3.11/x", "python3", {"a": [{"b": "python3 -m x"}]}, {"python3": 1}, ["x", ["apython3b"]]]
)
def test_a_value_that_the_runner_would_corrupt_is_refused_however_deep_it_lies(value: Any) -> None:
    with pytest.raises(UserError, match="without the word python3") as caught:
        laptop_arguments(PARAMETERS, {"dataset": value, "model": "/m"}, Path("/w"))
    assert [problem.what for problem in caught.value.problems] == ["dataset"]


def test_every_corrupted_value_and_the_workspace_are_told_at_once() -> None:
    with pytest.raises(UserError) as caught:
        laptop_arguments(PARAMETERS, {"dataset": "python3", "model": "python 3"}, Path("/python3/w"))
    assert [problem.what for problem in caught.value.problems] == ["workspace", "dataset"]


def test_a_real_run_that_is_refused_tells_why_and_keeps_everything_in_the_log(tmp_path: Path) -> None:
    parameters = read_parameters(PIPELINE)
    values = {"dataset": f"{tmp_path}/no-data", "model": f"{tmp_path}/no-model"}
    events: list[Event] = []
    log = tmp_path / "logs" / "local.log"
    arguments = laptop_arguments(parameters, values, tmp_path / "workspace")
    run = run_local(PIPELINE, arguments, tmp_path / "kfp", log, events.append)
    assert not run.succeeded
    assert f"dataset: given {tmp_path}/no-data; allowed: a file or directory that exists." in run.refusal
    assert f"model: given {tmp_path}/no-model;" in run.refusal
    assert run.failed_step in ("initialize-dataset", "initialize-model")
    assert StepFinished("initialize-model", False) in events and StepFinished("clean-up", True) in events
    assert "\x1b" not in log.read_text() and "Pipeline 'torchtune-finetune' finished with status" in log.read_text()
