"""Runs: started once whatever happens to the answer, found by name, stopped."""

from dataclasses import replace

import pytest
from remote_runs import GIVEN, PIPELINE
from servers import kfp
from servers.kfp import faults

from kfp_finetune.client.server.connection import Server
from kfp_finetune.client.server.launching import prepare, start
from kfp_finetune.client.server.runs import find_run, get_run, stop, submit
from kfp_finetune.client.server.uploads import upload
from kfp_finetune.errors import UserError


def test_a_run_is_one_of_the_uploaded_version_in_the_series_experiment(server: Server, remote: kfp.Server) -> None:
    run = start(server, prepare(str(PIPELINE), GIVEN, ["name=colours", "epochs=2"]))
    shown = get_run(server, run.run_id)
    assert shown.runtime_config.parameters == {**GIVEN, "name": "colours", "epochs": 2}
    assert shown.pipeline_version_reference.pipeline_version_id == next(iter(remote.store.versions))
    assert remote.store.experiments[shown.experiment_id]["display_name"] == "colours"
    assert run.page == f"{remote.url}/#/runs/details/{run.run_id}" and run.name.startswith("colours 20")
    again = start(server, prepare(str(PIPELINE), GIVEN, ["name=colours"]))
    assert get_run(server, again.run_id).experiment_id == shown.experiment_id


@pytest.mark.parametrize(
    ("ui_host", "sent"),
    [
        ("https://kubeflow.example.com/pipeline", True),
        ("http://10.1.2.3:8080", True),
        ("http://localhost:8080", False),
        ("http://ui.localhost", False),
        ("http://127.1.2.3", False),
        ("http://[::1]:80", False),
        ("http://0.0.0.0:80", False),
        ("http://ml-pipeline-ui.kubeflow.svc.cluster.local", False),
        ("http://ml-pipeline-ui.kubeflow.svc:80", False),
        ("https://me:hidden@kubeflow.example.com", False),
        ("", False),
    ],
)
def test_a_run_is_told_the_uis_address_if_others_can_open_it(server: Server, ui_host: str, sent: bool) -> None:
    run = start(replace(server, ui_host=ui_host), prepare(str(PIPELINE), GIVEN))
    parameters = get_run(server, run.run_id).runtime_config.parameters
    assert parameters == (GIVEN | {"ui_host": ui_host} if sent else GIVEN)
    chosen = start(replace(server, ui_host=ui_host), prepare(str(PIPELINE), GIVEN, ["ui_host=https://mine.example"]))
    assert get_run(server, chosen.run_id).runtime_config.parameters["ui_host"] == "https://mine.example"


def test_nothing_is_sent_before_everything_is_right(remote: kfp.Server) -> None:
    with pytest.raises(UserError) as caught:
        prepare(str(PIPELINE), {"model": "m"}, ["epochs=0", "num_nodes=2", 'trainjob={"cpus": 1}', "name=a/b"])
    assert [problem.what for problem in caught.value.problems] == [
        "dataset",
        "epochs",
        "num_nodes",
        "name",
        "trainjob.cpus",
    ]
    assert not remote.requests


@pytest.mark.parametrize("fault", [faults.lose_answer, faults.cut, faults.deny_what_was_done])
def test_a_run_whose_answer_is_lost_is_started_once(server: Server, remote: kfp.Server, fault: faults.Fault) -> None:
    remote.fail("POST", "/runs$", fault)
    run = start(server, prepare(str(PIPELINE), GIVEN))
    assert list(remote.store.runs) == [run.run_id]


def test_a_run_that_may_not_have_been_started_is_not_started_again(server: Server, remote: kfp.Server) -> None:
    version = upload(server, PIPELINE)
    remote.fail("POST", "/runs$", faults.status(500))
    with pytest.raises(UserError, match="the server, asked to start the run"):
        submit(server, version, GIVEN)
    assert not remote.store.runs


def test_what_the_server_finds_wrong_is_told(server: Server) -> None:
    with pytest.raises(UserError, match=r"start the run: given what the server refuses .*nope"):
        submit(server, upload(server, PIPELINE), {**GIVEN, "nope": 1})


def test_a_run_is_found_by_id_and_by_name_and_stopped(server: Server, remote: kfp.Server) -> None:
    run = start(server, prepare(str(PIPELINE), GIVEN))
    assert find_run(server, run.run_id) == find_run(server, run.name) == run.run_id
    with pytest.raises(UserError, match="run: given 'other'"):
        find_run(server, "other")
    stop(server, run.run_id)
    assert remote.run(run.run_id).state == "CANCELING"
    remote.run(run.run_id).end("FAILED")
    with pytest.raises(UserError, match="which has ended as FAILED"):
        stop(server, run.run_id)
