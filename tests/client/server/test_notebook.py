"""From a notebook: one call, a handle, and the example that is shipped."""

import os
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from kfp import client as kfp_client
from nbclient import NotebookClient
from remote_runs import REPORT, acts, whole_run
from servers import kfp

from kfp_finetune.client import Address, finetune, open_run, schedule
from kfp_finetune.client.server import following
from kfp_finetune.client.server.schedules import list_schedules
from kfp_finetune.errors import UserError

EXAMPLE = Path(__file__).parents[3] / "examples" / "finetune.ipynb"
FROM_V1 = Path(__file__).parents[3] / "pipelines" / "transformers_finetune" / "README.md"


def test_one_call_starts_a_run_and_its_handle_tells_the_rest(
    remote: kfp.Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(following, "POLL_SECONDS", 0)
    to = Address(host=remote.url)
    run = finetune(model="m", dataset="d", method="full", nodes=2, name="colours", to=to, epochs=2)
    parameters = remote.run(run.run_id).to_json()["runtime_config"]["parameters"]
    assert parameters == {
        "model": "m",
        "dataset": "d",
        "method": "full",
        "name": "colours",
        "num_nodes": 2,
        "launcher": "trainjob",
        "access_mode": "ReadWriteMany",
        "epochs": 2,
    }
    assert run.state == "PENDING" and run.page in run._repr_html_()
    remote.fail("GET", "/runs/[^/]*$", acts(*whole_run(remote)), times=2)
    assert run.follow().succeeded
    assert "torchtune-train done" in capsys.readouterr().out
    assert open_run(run.run_id, to).metrics() == {"loss_before": 2.5, "loss_after": 1.25}
    assert run.report().html.encode() == REPORT and "srcdoc" in run.report()._repr_html_()
    assert {path.name for path in run.fetch(tmp_path)} == {"metrics.json", "report.html"}


def test_a_client_with_credentials_of_its_own_is_used(remote: kfp.Server) -> None:
    remote.tokens = {"mine"}
    run = finetune(model="m", dataset="d", to=kfp_client.Client(host=remote.url, existing_token="mine"))
    run.stop()
    assert remote.run(run.run_id).state == "CANCELING"


def test_everything_wrong_is_said_before_anything_is_sent(remote: kfp.Server) -> None:
    with pytest.raises(UserError) as caught:
        finetune(model="", dataset="d", method="lorra", to=Address(host=remote.url), epoch=1, batch_size=1.5)
    assert {problem.what for problem in caught.value.problems} == {"model", "method", "epoch", "batch_size"}
    assert not remote.requests


def test_transformers_are_trained_by_the_same_call(remote: kfp.Server) -> None:
    kind = "AutoModelForSequenceClassification"
    run = finetune(
        "m", "d", nodes=2, pipeline="transformers_finetune", transformer_type=kind, to=Address(host=remote.url)
    )
    sent = remote.run(run.run_id).to_json()["runtime_config"]["parameters"]
    assert sent == {
        "model": "m",
        "dataset": "d",
        "name": "finetune",
        "num_workers": 2,
        "launcher": "trainjob",
        "access_mode": "ReadWriteMany",
        "transformer_type": kind,
    }


def test_the_example_for_those_who_come_from_v1_is_a_run(remote: kfp.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", remote.url)
    (example,) = re.findall(r"```python\n(.*?)```", FROM_V1.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    sent = remote.run(names["run"].run_id).to_json()["runtime_config"]["parameters"]
    assert (sent["num_workers"], sent["launcher"], sent["resources_per_worker"]["gpu"]) == (4, "trainjob", 2)


def test_a_schedule_is_replaced(remote: kfp.Server) -> None:
    to = Address(host=remote.url)
    run = finetune(model="m", dataset="d", to=to)
    schedule("nightly", model="m", dataset="d", cron="0 3 * * *", to=run.server)
    second = schedule("nightly", model="m", dataset="d", every_seconds=3600, to=to)
    assert list_schedules(run.server) == [second]


def test_the_example_runs_from_its_first_cell_to_its_last(remote: kfp.Server, tmp_path: Path) -> None:
    remote.fail("GET", "/runs/[^/]*$", acts(*whole_run(remote)), times=2)
    notebook = nbformat.read(EXAMPLE, as_version=4)
    environment = os.environ | {"KF_PIPELINES_ENDPOINT": remote.url}
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute(env=environment)
    shown = "".join(str(cell.get("outputs", "")) for cell in notebook.cells)
    assert "SUCCEEDED" in shown and "'loss_after': 1.25" in shown and "srcdoc" in shown
    assert "method: given" in shown and "every night" not in shown
    assert len(remote.store.schedules) == 1
