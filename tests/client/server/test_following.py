"""Following: steps, progress and lines as they come, once each, to the run's end."""

import json
from collections.abc import Callable
from pathlib import Path

import kfp_server_api
import pytest
from remote_runs import GIVEN, PIPELINE
from servers import kfp
from servers.kfp import faults

from kfp_finetune.client.events import Event, LogLine, Notice, StepFinished, StepStarted
from kfp_finetune.client.server import following
from kfp_finetune.client.server.connection import Address, Server, connect
from kfp_finetune.client.server.following import follow
from kfp_finetune.client.server.launching import prepare, start
from kfp_finetune.client.server.tasks import read_steps
from kfp_finetune.errors import UserError
from kfp_finetune.progress import Progress

RECORDED = [
    json.loads(line) for line in (Path(__file__).parents[2] / "servers" / "kfp_rest.jsonl").read_text().splitlines()
]
HALF = Progress("train", 5, 10, "step", 3.0, {"loss": 1.5})


@pytest.fixture(params=["ui", "api"])
def address(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def run(server: Server, remote: kfp.Server) -> kfp.Run:
    return remote.run(start(server, prepare(str(PIPELINE), GIVEN)).run_id)


def script(*acts: Callable[[], object]) -> Callable[[], None]:
    """What the test does each time that the server is about to be asked again."""
    left = list(acts)
    return lambda: (left.pop(0)(), None)[1]


def test_steps_lines_and_progress_are_told_once_each(server: Server, run: kfp.Run) -> None:
    def train() -> None:
        run.skip("condition-4")  # the training as a TrainJob
        run.start("torchtune-train")
        run.log("torchtune-train", "hello", HALF.to_line())

    def train_on() -> None:
        run.log("torchtune-train", "world")
        run.finish("torchtune-train")

    def end() -> None:
        for step in "evaluate-model", "export-model", "clean-up":
            run.finish(step)
        run.end()

    events: list[Event] = []
    ended = follow(server, run.id, events.append, script(train, train_on, end))
    assert ended.succeeded and not ended.failed_steps
    mine = [event for event in events if getattr(event, "step", "torchtune-train") == "torchtune-train"]
    assert mine == [
        StepStarted("torchtune-train"),
        LogLine("torchtune-train", "hello"),
        HALF,
        LogLine("torchtune-train", "world"),
        StepFinished("torchtune-train", True, 1.0),
    ]
    started = [event.step for event in events if isinstance(event, StepStarted)]
    assert started[0] == "create-volume" and started[-3:] == ["evaluate-model", "export-model", "clean-up"]
    assert len(started) == len(set(started)) == 8


def test_a_failure_ends_with_the_steps_name_and_its_last_lines(server: Server, run: kfp.Run) -> None:
    def fail() -> None:
        run.start("plan")
        run.log("plan", *map(str, range(100)), "error: 1 problem with what was given:")
        run.finish("plan", succeeded=False)
        run.end("FAILED")

    ended = follow(server, run.id, lambda event: None, script(fail))
    assert (ended.state, ended.failed_steps) == ("FAILED", ("plan",))
    assert ended.last_lines[-1].startswith("error: 1 problem") and len(ended.last_lines) == 25


def test_a_step_whose_driver_fails_is_a_failed_step(server: Server, run: kfp.Run) -> None:
    def fail() -> None:
        run.driver("create-volume", "FAILED")
        run.end("FAILED")

    assert follow(server, run.id, lambda event: None, script(fail)).failed_steps == ("create-volume",)


def test_a_run_that_was_stopped_has_not_succeeded(server: Server, run: kfp.Run) -> None:
    ended = follow(server, run.id, lambda event: None, script(lambda: run.end("FAILED")))
    assert (ended.succeeded, ended.failed_steps) == (False, ())


@pytest.mark.parametrize("fault", [faults.drop, faults.status(500), faults.status(503), faults.cut, faults.page()])
def test_a_connection_that_comes_and_goes_loses_nothing(
    server: Server, remote: kfp.Server, run: kfp.Run, fault: faults.Fault
) -> None:
    def begin() -> None:
        run.start("plan")
        run.log("plan", "one")
        remote.fail("GET", "/runs/[^/]*$", fault, times=2)
        remote.fail("GET", "/log", fault)

    def more() -> None:
        run.log("plan", "two")

    def end() -> None:
        run.finish("plan")
        run.end()

    events: list[Event] = []
    assert follow(server, run.id, events.append, script(begin, more, end)).succeeded
    lines = [event.text for event in events if isinstance(event, LogLine) and event.step == "plan"]
    assert lines == ["one", "two"]


def test_a_step_whose_pod_is_gone_is_read_from_the_archive(server: Server, run: kfp.Run) -> None:
    def end() -> None:
        run.start("plan")
        run.log("plan", "one")
        run.finish("plan")
        run.lose_pods()
        run.end()

    events: list[Event] = []
    follow(server, run.id, events.append, script(end))
    assert LogLine("plan", "one") in events


def test_a_server_that_hands_out_no_logs_still_tells_the_steps() -> None:
    with kfp.serve() as remote:
        server = connect(Address(host=remote.url))
        run = remote.run(start(server, prepare(str(PIPELINE), GIVEN)).run_id)

        def end() -> None:
            run.start("plan")
            run.finish("plan")
            run.lose_pods()
            run.end()

        events: list[Event] = []
        assert follow(server, run.id, events.append, script(end)).succeeded
        assert StepFinished("plan", True, 1.0) in events


def test_an_expired_token_ends_it_after_a_minute_with_what_to_do(
    server: Server, remote: kfp.Server, run: kfp.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def expire() -> None:
        remote.tokens = {"new"}

    monkeypatch.setattr(following, "LOGIN_SECONDS", 0)
    with pytest.raises(UserError, match="credentials"):
        follow(server, run.id, lambda event: None, script(expire))


def test_a_token_that_is_being_renewed_is_waited_for(remote: kfp.Server, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first")
    remote.tokens = {"first"}
    server = connect(Address(host=remote.url, token_file=str(token)))
    run = remote.run(start(server, prepare(str(PIPELINE), GIVEN)).run_id)

    def expire() -> None:
        remote.tokens = {"second"}

    events: list[Event] = []
    acts = (expire, lambda: token.write_text(""), token.unlink, lambda: token.write_text("second"), run.end)
    assert follow(server, run.id, events.append, script(*acts)).succeeded
    notices = [event.text for event in events if isinstance(event, Notice)]
    assert len(notices) == 2 and "credentials" in notices[0] and notices[1] == "the server answers again"


def test_a_log_that_was_cut_at_its_beginning_goes_on_where_it_was(
    server: Server, run: kfp.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "READ_SHARE", 1e9)  # the log is read each time

    def begin() -> None:
        run.start("plan")
        run.log("plan", *map(str, range(50)))

    def cut() -> None:
        (name,) = (name for name, log in run.logs.items() if log)
        run.logs[name] = "".join(f"{number}\n" for number in range(40, 60))

    def replace() -> None:
        (name,) = (name for name, log in run.logs.items() if log)
        run.logs[name] = "".join(f"new {number}\n" for number in range(70))
        run.finish("plan")
        run.end()

    events: list[Event] = []
    follow(server, run.id, events.append, script(begin, cut, replace))
    lines = [event.text for event in events if isinstance(event, LogLine) and event.step == "plan"]
    assert lines == [*map(str, range(60)), *(f"new {number}" for number in range(70))]


@pytest.mark.parametrize(("what", "state"), [("wait for success", "SUCCEEDED"), ("wait for failure", "FAILED")])
def test_the_steps_of_runs_that_a_real_server_recorded_are_found(what: str, state: str) -> None:
    answer = [entry["response"] for entry in RECORDED if entry["what"] == what][-1]
    holder = type("Answer", (), {"data": json.dumps(answer)})
    run = kfp_server_api.ApiClient().deserialize(holder, "V2beta1Run")
    (step,) = read_steps(run.run_details.task_details)
    assert (step.name, step.state) == ("work", state)
    assert step.pod.startswith("small-") and "-system-container-impl-" in step.pod
    ids = {child.pod_name for task in run.run_details.task_details for child in task.child_tasks or []}
    assert step.node in ids
