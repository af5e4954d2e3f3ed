"""The commands as a person and a script use them."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from remote_runs import PIPELINE, acts, whole_run
from servers import kfp
from typer.testing import CliRunner

from kfp_finetune.client.cli import app
from kfp_finetune.client.server import following
from kfp_finetune.results import Result as RunResult

SET = ["--set", "model=hf://org/model", "--set", "dataset=hf://org/rows"]


@pytest.fixture(autouse=True)
def at_home(remote: kfp.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", remote.url)
    monkeypatch.setattr(following, "POLL_SECONDS", 0)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


def answer(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_upload_tells_whether_it_was_there() -> None:
    assert " uploaded: " in run("upload").stdout
    assert " is there already: " in run("upload", str(PIPELINE)).stdout
    assert answer("upload", "torchtune-finetune")["created"] is False


def test_a_run_is_submitted_followed_and_fetched(remote: kfp.Server, tmp_path: Path) -> None:
    run_id = answer("submit", *SET, "--set", "name=colours")["run_id"]
    remote.fail("GET", "/runs/[^/]*$", acts(lambda: None, *whole_run(remote)), times=3)
    result = run("follow", run_id)
    assert result.exit_code == 0, result.output
    assert "torchtune-train" in result.stdout and "train: 50% step 5/10  loss 1.5" in result.stdout
    assert "a line" not in result.stdout and "the run succeeded" in result.stdout
    assert "torchtune-train: a line" in run("follow", run_id, "--logs").stdout
    assert answer("follow", run_id)["state"] == "SUCCEEDED"
    files = answer("fetch", run_id, "--to", str(tmp_path / "here"))["files"]
    assert [Path(file).name for file in files] == ["metrics.json", "report.html"]
    assert json.loads(Path(files[0]).read_text())["loss_after"] == 1.25


def test_submit_follows_to_a_failure_and_its_status(remote: kfp.Server) -> None:
    def fail() -> None:
        newest = list(remote.store.runs.values())[-1]
        newest.start("plan")
        newest.log("plan", "error: 1 problem with what was given:", "  - method: given 'x'")
        newest.finish("plan", succeeded=False)
        newest.end("FAILED")

    remote.fail("GET", "/runs/[^/]*$", acts(fail))
    result = run("submit", *SET, "--follow")
    assert result.exit_code == 1
    assert "method: given 'x'" in result.stdout and "the run ended as FAILED in plan" in result.stdout


def test_a_run_that_had_nothing_to_do_says_so(remote: kfp.Server) -> None:
    def end() -> None:
        newest = list(remote.store.runs.values())[-1]
        newest.start("plan")
        newest.log("plan", RunResult("plan", {"planned": "done", "export": "exports/abc"}).to_line())
        newest.finish("plan")
        newest.end()

    remote.fail("GET", "/runs/[^/]*$", acts(end))
    assert "nothing to do: data and settings are those of exports/abc" in run("submit", *SET, "--follow").stdout


def test_following_may_be_interrupted(remote: kfp.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(following.follow, "__defaults__", (interrupt,))
    result = run("submit", *SET, "--follow")
    assert result.exit_code == 130 and "the run goes on: kfp-finetune follow" in result.stdout
    assert next(iter(remote.store.runs.values())).state == "PENDING"


def test_what_is_left_of_another_run_goes(remote: kfp.Server, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("of another run")
    (tmp_path / "mine.txt").write_text("stays")
    run_id = answer("submit", *SET)["run_id"]
    moves = remote.run(run_id)
    moves.start("plan")
    moves.log("plan", RunResult("plan", {"planned": "done"}).to_line())
    answer("fetch", run_id, "--to", str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.json", "mine.txt"]
    result = run("fetch", run_id, "--to", str(tmp_path / "mine.txt"))
    assert result.exit_code == 2 and result.stderr.startswith("error: ")


def test_values_come_from_a_file_and_typed_ones_go_first(remote: kfp.Server, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text("model: hf://org/model\ndataset: hf://org/rows\nepochs: 2\ncolumn_map: {input: q}\n")
    run_id = answer("submit", "--file", str(file), "--set", "epochs=3")["run_id"]
    parameters = remote.run(run_id).to_json()["runtime_config"]["parameters"]
    assert parameters["epochs"] == 3 and parameters["column_map"] == {"input": "q"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["submit", "--set", "model=m", "--set", "epochs=0"],
        ["submit", "nothing.yaml", *SET],
        ["follow", "no-such-run"],
        ["stop", "no-such-run"],
        ["fetch", "no-such-run"],
        ["schedule", "set", "nightly", *SET],
        ["schedule", "delete", "nightly"],
        ["upload", "--host", "kubeflow"],
    ],
)
def test_what_is_wrong_ends_with_status_2_and_no_traceback(arguments: list[str], remote: kfp.Server) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ") and "Traceback" not in result.output
    assert not remote.store.runs and not remote.store.schedules


def test_a_run_is_stopped(remote: kfp.Server) -> None:
    run_id = answer("submit", *SET)["run_id"]
    assert "is being stopped" in run("stop", run_id).stdout
    assert remote.run(run_id).state == "CANCELING"


def test_a_schedule_is_made_shown_changed_and_deleted(remote: kfp.Server) -> None:
    result = run("schedule", "set", "nightly", *SET, "--cron", "0 3 * * *", "--set", "start_from=latest")
    assert "schedule nightly, cron '0 0 3 * * *' (seconds first) in the server's time zone (UTC unless" in result.stdout
    assert "nightly" in run("schedule", "list").stdout
    (shown,) = answer("schedule", "list")
    assert shown["arguments"]["name"] == "nightly" and shown["arguments"]["start_from"] == "latest"
    again = answer("schedule", "set", "nightly", *SET, "--every", "3600", "--disabled", "--set", "name=other")
    assert again["enabled"] is False and again["arguments"]["name"] == "other"
    assert [one["schedule_id"] for one in answer("schedule", "list")] == [again["schedule_id"]]
    assert run("schedule", "enable", "nightly").exit_code == run("schedule", "disable", "nightly").exit_code == 0
    assert answer("schedule", "delete", "nightly")["deleted"] is True
    assert "no schedules" in run("schedule", "list").stdout
