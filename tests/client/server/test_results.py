"""Results: figures from the logs, files from the UI."""

import json
from pathlib import Path

import pytest
from remote_runs import GIVEN, KEY, PIPELINE, REPORT
from servers import kfp

from kfp_finetune.client.server.connection import Server
from kfp_finetune.client.server.launching import prepare, start
from kfp_finetune.client.server.results import fetch, read_results
from kfp_finetune.errors import UserError
from kfp_finetune.results import Result

EVALUATED = Result("evaluate", {"loss_after": 1.25}, {"report.html": f"minio://mlpipeline/{KEY}"})


@pytest.fixture
def run(server: Server, remote: kfp.Server) -> kfp.Run:
    run = remote.run(start(server, prepare(str(PIPELINE), GIVEN)).run_id)
    run.skip("condition-4")  # the training as a TrainJob
    run.finish("torchtune-train")
    run.start("evaluate-model")
    return run


def test_figures_and_files_are_written(server: Server, remote: kfp.Server, run: kfp.Run, tmp_path: Path) -> None:
    run.log("torchtune-train", Result("train", {"loss_after": 9.0, "tokens": 10}).to_line())
    run.log("evaluate-model", "other", EVALUATED.to_line())
    remote.artifacts[KEY] = REPORT
    files = fetch(server, run.id, tmp_path / "new" / "results")
    assert [path.name for path in files] == ["metrics.json", "report.html"]
    metrics = json.loads(files[0].read_text())
    assert metrics == {"run": run.id, "state": "RUNNING", "loss_after": 1.25, "tokens": 10}
    assert files[1].read_bytes() == REPORT


@pytest.mark.parametrize("address", ["ui", "api"])  # of the UI, where the artifact is not there
def test_without_the_files_come_the_figures_and_what_to_do(run: kfp.Run, tmp_path: Path, server: Server) -> None:
    run.log("evaluate-model", EVALUATED.to_line())
    with pytest.raises(UserError, match="the address of the UI"):
        fetch(server, run.id, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_a_login_page_is_not_taken_for_a_report(
    server: Server, remote: kfp.Server, run: kfp.Run, tmp_path: Path
) -> None:
    run.log("evaluate-model", EVALUATED.to_line())
    remote.artifacts[KEY] = b"<!DOCTYPE html><title>Log in</title>"
    with pytest.raises(UserError, match="does not hand out"):
        fetch(server, run.id, tmp_path)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    "line",
    [
        'result {"step": "evaluate", "figures": {}, "files": {"../../etc/passwd": "minio://a/b"}}',
        'result {"step": 5}',
        'result {"step": "a", "figures": {"a": []}}',
        'result {"step": "a", "figures": []}',
        'result {"other": "a"}',
        "result {",
        'my result {"step": "a"}',
    ],
)
def test_a_line_that_is_no_result_is_left_alone(server: Server, run: kfp.Run, tmp_path: Path, line: str) -> None:
    run.log("evaluate-model", line)
    assert not read_results(server, run.id).results
    with pytest.raises(UserError, match="which has no results yet"):
        fetch(server, run.id, tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_a_run_without_logs_tells_where_the_files_lie(server: Server, run: kfp.Run, tmp_path: Path) -> None:
    run.lose_pods()
    with pytest.raises(UserError, match=r"of whose steps the server has no logs|which has no results yet"):
        fetch(server, run.id, tmp_path)
