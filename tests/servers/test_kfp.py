"""The tests' Kubeflow Pipelines answers as a real one did, and as its own client expects."""

import contextlib
import http.client
import json
import re
import ssl
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import kfp_server_api
import pytest
import yaml
from kfp import client as kfp_client
from kfp import compiler, dsl
from servers import kfp
from servers.certificates import write_certificate
from servers.kfp import faults
from servers.kfp.workflow import hashed

API = "/apis/v2beta1"
RECORDING = [json.loads(line) for line in Path(__file__).with_name("kfp_rest.jsonl").read_text().splitlines()]
TIME = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ")
IDS = ("pipeline_id", "pipeline_version_id", "experiment_id", "run_id", "recurring_run_id")
SPECS = {
    version["name"]: version["pipeline_spec"]
    for record in RECORDING
    if record["what"] == "list versions"
    for version in record["response"]["pipeline_versions"]
}
FINETUNE = Path(__file__).parents[2] / "pipelines/torchtune_finetune/pipeline.yaml"
TRAIN = "exit-handler-1/condition-2/condition-branches-3/condition-5/torchtune-train"


@pytest.fixture
def server() -> Iterator[kfp.Server]:
    with kfp.serve() as server:
        yield server


def ask(
    server: kfp.Server,
    method: str,
    path: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> tuple[int, str, Any]:
    """Status, content type and content of an answer."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data, headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10, context=tls) as answer:
            status, kind, content = answer.status, answer.headers["Content-Type"], answer.read()
    except urllib.error.HTTPError as error:
        status, kind, content = error.code, error.headers["Content-Type"], error.read()
    return status, kind, json.loads(content) if kind == "application/json" else content


def upload(server: kfp.Server, path: str, content: bytes, headers: dict[str, str] | None = None) -> Any:
    disposition = b'Content-Disposition: form-data; name="uploadfile"; filename="pipeline.yaml"'
    body = b"--edge\r\n" + disposition + b"\r\n\r\n" + content + b"\r\n--edge--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=edge"}
    return ask(server, "POST", path, body, kind | (headers or {}))


def equals(field: str, value: str) -> str:
    """A query for what is equal to a value, as kfp.Client writes it."""
    return urlencode({"filter": json.dumps({"predicates": [{"operation": 1, "key": field, "stringValue": value}]})})


# The recording


QUERIES = {
    "pipeline id by name": equals("display_name", "small"),
    "create experiment": equals("display_name", "exp") + "&namespace=",
    "create experiment again": equals("display_name", "exp") + "&namespace=",
    "list recurring": "page_token=&page_size=10&sort_by=&experiment_id={experiment}",
    "list runs": "experiment_id={experiment}&page_token=&page_size=10&sort_by=",
    "runs of a recurring run": "experiment_id={experiment}&page_token=&page_size=10&sort_by=created_at%20desc",
}
"""The recording has the names of a query's fields, not their values."""

UPLOADS = {
    "upload pipeline": yaml.safe_dump(SPECS["small"]),
    "upload pipeline, name taken": yaml.safe_dump(SPECS["small"]),
    "upload version": yaml.safe_dump(SPECS["v2"]),
    "upload version, name taken": yaml.safe_dump(SPECS["v2"]),
    "upload malformed yaml": "neither: a pipeline",
}

MOVES: dict[tuple[str, int], list[tuple[str, str, tuple[Any, ...]]]] = {
    ("get run while it runs 1", 1): [("run-1", "driver", ("",))],
    ("get run while it runs 2", 1): [("run-1", "driver", ("work", "PENDING"))],
    ("get run while it runs 3", 1): [("run-1", "queue", ("work",))],
    ("wait for success", 1): [("run-1", "start", ("work",)), ("run-1", "record_result", ("work",))],
    ("wait for success", 2): [("run-1", "finish", ("work",)), ("run-1", "end", ())],
    ("wait for failure", 2): [("run-2", "driver", ("", "PENDING"))],
    ("wait for failure", 3): [("run-2", "finish", ("work", False)), ("run-2", "end", ("FAILED",))],
    ("terminate", 1): [("run-3", "start", ("work",))],
    ("get run after terminate, later", 1): [("run-3", "end", ("FAILED",))],
}
"""How a test brings a run to where the real one was when this was asked for, the first or a later time."""


class Replay:
    """Sends what was recorded, and compares the answers."""

    def __init__(self, server: kfp.Server) -> None:
        self.server = server
        self.ids: dict[str, str] = {}
        self.sent: Counter[str] = Counter()

    def send(self, record: dict[str, Any]) -> None:
        what, url = record["what"], self.in_our_ids(record["url"])
        self.sent[what] += 1
        for run, move, values in MOVES.get((what, self.sent[what]), ()):
            getattr(self.server.run(run), move)(*values)
        if what in UPLOADS:
            status, kind, answer = upload(self.server, url, UPLOADS[what].encode())
        else:
            experiment = self.server.store.find_experiment("exp", "") or {"experiment_id": ""}
            query = QUERIES.get(what, "") if record["method"] == "GET" else ""
            body = json.loads(self.in_our_ids(json.dumps(record.get("request"))))
            target = f"{url}?{query.format(experiment=experiment['experiment_id'])}"
            status, kind, answer = ask(self.server, record["method"], target, body)
        assert (status, kind) == (record["status"], record["content_type"])
        self.compare(ordered(record["response"]), ordered(answer), what)
        if record["method"] == "POST" and record["url"] == f"{API}/runs" and status == 200:
            self.server.run(answer["run_id"]).workflow.name = workflow_name(record["response"]["run_id"])

    def in_our_ids(self, text: str) -> str:
        for recorded, ours in self.ids.items():
            text = text.replace(recorded, ours)
        return text

    def compare(self, recorded: Any, ours: Any, at: str) -> None:
        assert type(recorded) is type(ours), at
        if isinstance(recorded, dict):
            assert recorded.keys() == ours.keys(), at
            for name, value in recorded.items():
                if name in IDS:
                    assert self.ids.setdefault(value, ours[name]) == ours[name], f"{at}.{name}"
                elif name == "error_details":
                    assert ours[name].splitlines()[0] == value.splitlines()[0]
                elif name != "task_id":
                    self.compare(value, ours[name], f"{at}.{name}")
        elif isinstance(recorded, list):
            assert len(recorded) == len(ours), at
            for number, (one, other) in enumerate(zip(recorded, ours, strict=True)):
                self.compare(one, other, f"{at}[{number}]")
        elif isinstance(recorded, str):
            assert TIME.sub("TIME", self.in_our_ids(recorded)) == TIME.sub("TIME", ours), at
        else:
            assert recorded == ours, at


def workflow_name(run: str) -> str:
    """What the real server called a run's workflow, so that the ids of its nodes can be compared."""
    named = rf'"run_id": "{run}", "task_id": "[^"]*", "display_name": "([^"]*)\(0\)"'
    return next(found[1] for found in re.finditer(named, json.dumps(RECORDING)) if found[1].startswith("small-"))


def ordered(answer: Any) -> Any:
    """Puts into order what comes in that of random ids: tasks, and what was made in one second."""
    keys = {"task_details": "display_name", "pipeline_versions": "name", "recurringRuns": "trigger"}
    if isinstance(answer, list):
        return [ordered(each) for each in answer]
    if not isinstance(answer, dict):
        return answer
    parts = {name: ordered(value) for name, value in answer.items()}
    for name in keys.keys() & parts.keys():
        parts[name] = sorted(parts[name], key=lambda each: str(each.get(keys[name])))
    return parts


def test_it_answers_all_that_was_recorded_as_the_real_server_did(server: kfp.Server) -> None:
    replay = Replay(server)
    for record in RECORDING:
        replay.send(record)
    assert len(server.requests) == len(RECORDING)


# Its own client


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A pipeline of one step, with a parameter of each kind."""

    @dsl.component
    def work(seconds: int, share: float, name: str, fast: bool, names: list, options: dict) -> str:
        return name

    @dsl.pipeline(name="small")
    def small(
        name: str,
        seconds: int = 1,
        share: float = 0.5,
        fast: bool = False,
        names: list = [],  # noqa: B006
        options: dict = {},  # noqa: B006
    ) -> None:
        work(seconds=seconds, share=share, name=name, fast=fast, names=names, options=options)

    path = tmp_path_factory.mktemp("package") / "small.yaml"
    compiler.Compiler().compile(small, str(path))
    return str(path)


@pytest.fixture
def client(server: kfp.Server) -> kfp_client.Client:
    return kfp_client.Client(host=server.url)


def test_kfps_client_uploads_runs_and_waits(server: kfp.Server, client: kfp_client.Client, package: str) -> None:
    pipeline = client.upload_pipeline(package, "small", "what it is")
    version = client.upload_pipeline_version(package, "two", pipeline_id=pipeline.pipeline_id)
    assert client.get_pipeline_id("small") == pipeline.pipeline_id
    assert client.get_pipeline(pipeline.pipeline_id).description == "what it is"
    versions = client.list_pipeline_versions(pipeline.pipeline_id, sort_by="created_at desc").pipeline_versions
    assert [each.display_name for each in versions] == ["two", "small"]

    experiment = client.create_experiment("mine")
    assert client.create_experiment("mine").experiment_id == experiment.experiment_id
    ids = {"pipeline_id": pipeline.pipeline_id, "version_id": version.pipeline_version_id}
    run = client.run_pipeline(experiment.experiment_id, "first", params={"name": "x"}, **ids)
    assert client.get_run(run.run_id).state == "PENDING"
    assert client.get_experiment(experiment.experiment_id).last_run_created_at == run.created_at
    server.run(run.run_id).finish("work")
    server.run(run.run_id).end()
    done = client.wait_for_run_completion(run.run_id, timeout=60, sleep_duration=0)
    assert done.state == "SUCCEEDED"
    assert [each.run_id for each in client.list_runs(experiment_id=experiment.experiment_id).runs] == [run.run_id]
    client.archive_run(run.run_id)
    assert client.get_run(run.run_id).storage_state == "ARCHIVED"

    second = client.create_run_from_pipeline_package(package, {"name": "y"}, "second", "mine", enable_caching=False)
    server.run("second").start("work")
    client.terminate_run(second.run_id)
    assert client.get_run(second.run_id).state == "CANCELING"
    with pytest.raises(kfp_server_api.ApiException, match="Row not found"):
        client.terminate_run(second.run_id)
    server.run("second").end("FAILED")
    assert client.wait_for_run_completion(second.run_id, 60, 0).state == "FAILED"
    client.delete_run(second.run_id)
    with pytest.raises(kfp_server_api.ApiException, match="404"):
        client.get_run(second.run_id)


def test_kfps_client_makes_recurring_runs(server: kfp.Server, client: kfp_client.Client, package: str) -> None:
    pipeline = client.upload_pipeline(package, "small")
    experiment = client.create_experiment("mine")
    made = client.create_recurring_run(
        experiment.experiment_id,
        "nightly",
        cron_expression="0 0 3 * * *",
        params={"name": "x"},
        pipeline_id=pipeline.pipeline_id,
        version_id=client.list_pipeline_versions(pipeline.pipeline_id).pipeline_versions[0].pipeline_version_id,
    )
    key = made.recurring_run_id
    listed = client.list_recurring_runs(experiment_id=experiment.experiment_id).recurring_runs
    assert [(each.recurring_run_id, each.status) for each in listed] == [(key, "ENABLED")]

    first, second = server.fire(key), server.fire(key)
    runs = client.list_runs(experiment_id=experiment.experiment_id, sort_by="created_at desc").runs
    assert [(each.run_id, each.recurring_run_id) for each in runs] == [(second.id, key), (first.id, key)]
    assert runs[0].runtime_config.parameters == {"name": "x"}

    client.disable_recurring_run(key)
    assert client.get_recurring_run(key).mode == "DISABLE"
    with pytest.raises(ValueError, match="disabled"):
        server.fire(key)
    client.enable_recurring_run(key)
    assert client.get_recurring_run(key).status == "ENABLED"
    client.delete_recurring_run(key)
    with pytest.raises(kfp_server_api.ApiException, match="not found"):
        client.get_recurring_run(key)
    assert client.list_runs(experiment_id=experiment.experiment_id).total_size == 2


def test_without_a_version_each_recurring_run_takes_the_latest(
    server: kfp.Server, client: kfp_client.Client, package: str
) -> None:
    pipeline = client.upload_pipeline(package, "small").pipeline_id
    asked = {"display_name": "hourly", "mode": "ENABLE", "max_concurrency": 1}
    asked |= {"pipeline_version_reference": {"pipeline_id": pipeline}, "runtime_config": {"parameters": {"name": "x"}}}
    asked |= {"trigger": {"periodic_schedule": {"interval_second": 3600}}}
    made = ask(server, "POST", f"{API}/recurringruns", asked)[2]
    assert made["pipeline_version_reference"] == {"pipeline_id": pipeline}
    newer = client.upload_pipeline_version(package, "newer", pipeline_id=pipeline)
    run = client.get_run(server.fire(made["recurring_run_id"]).id)
    assert run.pipeline_version_reference.pipeline_version_id == newer.pipeline_version_id


def test_a_pipeline_with_a_platforms_part_keeps_it(server: kfp.Server, client: kfp_client.Client) -> None:
    client.upload_pipeline(str(FINETUNE), "finetune")
    pipeline = client.get_pipeline_id("finetune")
    shown = client.list_pipeline_versions(pipeline).pipeline_versions[0].pipeline_spec
    assert [shown["pipeline_spec"], shown["platform_spec"]] == list(yaml.safe_load_all(FINETUNE.read_text()))
    status, _, body = ask(server, "GET", f"{API}/pipelines/names/finetune")
    assert (status, body["pipeline_id"]) == (200, pipeline)


# Runs under the test's control


@pytest.fixture
def finetune(server: kfp.Server, client: kfp_client.Client) -> kfp.Run:
    """A run of the repository's own pipeline."""
    given = {"dataset": "d", "model": "m"}
    made = client.create_run_from_pipeline_package(str(FINETUNE), given, "tuned", enable_caching=True)
    return server.run(made.run_id)


def nodes(run: kfp.Run) -> dict[str, Any]:
    """A run's tasks as the API shows them, by the full names of their nodes, which are found from the top down."""
    tasks = run.to_json()["run_details"]["task_details"]
    names = {"": [task for task in tasks if task.get("display_name") == run.workflow.name]}
    found, todo = {run.workflow.name: names[""][0]}, [run.workflow.name]
    known = {f"{run.workflow.name}-{hashed(name)}": name for name in run.workflow.nodes}
    while todo:
        for child in found[todo.pop()].get("child_tasks", ()):
            name = known[child["pod_name"]]
            if name not in found:
                owner = [task for task in tasks if task["task_id"] == run.workflow.nodes[name].task_id]
                found[name] = owner[0]
                todo.append(name)
    assert found.keys() == run.workflow.nodes.keys(), "each node hangs from another one"
    return found


def below(run: kfp.Run, names: list[str]) -> list[str]:
    prefix = f"{run.workflow.name}(0).root(0)."
    return sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix))


def test_steps_in_groups_have_nodes_as_argo_makes_them(finetune: kfp.Run) -> None:
    finetune.start("torchtune-train")
    shown = nodes(finetune)
    top = f"{finetune.workflow.name}(0).root(0)"
    chain = ["exit-handler-1", "condition-2", "condition-branches-3", "condition-5", "torchtune-train", "executor"]
    name = top
    for part in chain:
        name += f".{part}"
        assert shown[name]["display_name"] == part
        assert shown[name]["state"] == "RUNNING"
        name += "(0)"
        assert shown[name]["display_name"] == f"{part}(0)"
    assert finetune.node_id(TRAIN) == f"{finetune.workflow.name}-{hashed(name)}"
    done = f"{top}.exit-handler-1(0).plan(0).executor(0)"
    assert [shown[done]["state"], [each["state"] for each in shown[done]["state_history"]]] == [
        "SUCCEEDED",
        ["PENDING", "RUNNING", "SUCCEEDED"],
    ]
    assert shown[name]["end_time"] == "0001-01-01T00:00:00Z"
    assert finetune.to_json()["state"] == "RUNNING"


def test_what_waits_for_a_task_hangs_from_its_last_nodes(finetune: kfp.Run) -> None:
    finetune.skip("condition-4")
    finetune.finish("torchtune-train")
    finetune.start("evaluate-model")
    shown = nodes(finetune)
    group = f"{finetune.workflow.name}(0).root(0).exit-handler-1(0).condition-2(0)"
    branches = f"{group}.condition-branches-3(0)"
    waiting = {"pod_name": f"{finetune.workflow.name}-{hashed(f'{group}.evaluate-model-driver')}"}
    parents = [name for name, task in shown.items() if waiting in task.get("child_tasks", ())]
    assert parents == [f"{branches}.condition-5(0).torchtune-train(0).executor(0)", f"{branches}.condition-4"]
    assert shown[f"{branches}.condition-4"]["state"] == "SKIPPED"
    assert shown[f"{group}.condition-branches-3"]["state"] == "SUCCEEDED"


def test_a_step_that_fails_leaves_out_what_waits_for_it(finetune: kfp.Run) -> None:
    finetune.finish("plan", succeeded=False)
    shown = nodes(finetune)
    handler = f"{finetune.workflow.name}(0).root(0).exit-handler-1"
    for name in "condition-2-driver", "condition-2":
        assert "state" not in shown[f"{handler}(0).{name}"], "the API has no word for omitted"
    assert shown[handler]["state"] == "FAILED"
    finetune.finish("clean-up")
    finetune.end("FAILED")
    shown = nodes(finetune)
    hook = f"{handler}.onExit"
    assert shown[hook]["display_name"] == "exit-handler-1.onExit"
    assert shown[f"{hook}(0).clean-up(0).executor(0)"]["state"] == "SUCCEEDED"
    assert [each["pod_name"] for each in shown[handler]["child_tasks"]] == [
        f"{finetune.workflow.name}-{hashed(f'{handler}{end}')}" for end in ("(0)", ".onExit")
    ]
    assert [each["state"] for each in finetune.to_json()["state_history"]] == ["PENDING", "RUNNING", "FAILED"]


def test_a_driver_that_fails_leaves_no_pod(finetune: kfp.Run) -> None:
    finetune.driver("create-volume", "FAILED")
    inside = below(finetune, [name for name, task in nodes(finetune).items() if "state" not in task])
    assert "exit-handler-1(0).create-volume" in inside
    assert "exit-handler-1(0).plan" in inside
    assert not [name for name in nodes(finetune) if name.endswith("create-volume(0)")]


def test_a_result_from_the_cache_skips_the_executor(
    server: kfp.Server, client: kfp_client.Client, package: str
) -> None:
    run = server.run(client.create_run_from_pipeline_package(package, {"name": "x"}, "again").run_id)
    run.reuse("work")
    run.end()
    shown = nodes(run)
    inside = f"{run.workflow.name}(0).root(0).work(0)"
    assert [shown[inside]["state"], shown[f"{inside}.executor"]["state"]] == ["SUCCEEDED", "SKIPPED"]


def test_it_refuses_moves_that_argo_would_not_make(finetune: kfp.Run) -> None:
    with pytest.raises(ValueError, match="condition-branches-3, which is not run"):
        finetune.start("export-model")
    with pytest.raises(ValueError, match="names 0 tasks"):
        finetune.start("no-such")
    with pytest.raises(ValueError, match="is a group"):
        finetune.start("condition-2")
    with pytest.raises(ValueError, match="waits for the end of exit-handler-1"):
        finetune.start("clean-up")
    finetune.finish("torchtune-train")
    with pytest.raises(ValueError, match="has ended"):
        finetune.start("torchtune-train")
    finetune.end()
    with pytest.raises(ValueError, match=r"^run .* has ended"):
        finetune.start("evaluate-model")


def test_a_retried_run_keeps_what_succeeded(server: kfp.Server, finetune: kfp.Run) -> None:
    path = f"{API}/runs/{finetune.id}:retry"
    assert ask(server, "POST", path)[:2] == (409, "application/json")
    finetune.start("torchtune-train")
    finetune.log("torchtune-train", "the first try")
    finetune.finish("torchtune-train", succeeded=False)
    finetune.end("FAILED")
    done = nodes(finetune)
    assert ask(server, "POST", path)[0] == 200
    assert ask(server, "GET", f"{API}/runs/{finetune.id}")[2]["state"] == "RUNNING"
    assert {task["state"] for task in nodes(finetune).values()} == {"RUNNING", "SUCCEEDED"}
    assert not [name for name in nodes(finetune) if ".torchtune-train(0).executor" in name]
    finetune.start("torchtune-train")
    assert ask(server, "GET", log_path(finetune, finetune.pod_name("torchtune-train")))[2] == b""
    again = nodes(finetune)
    plan = f"{finetune.workflow.name}(0).root(0).exit-handler-1(0).plan(0).executor(0)"
    assert again[plan] == done[plan]


def log_path(run: kfp.Run, node: str) -> str:
    return f"/apis/v1alpha1/runs/{run.id}/nodes/{node}/log"


def test_logs_are_found_by_the_name_of_the_pod(server: kfp.Server, finetune: kfp.Run) -> None:
    finetune.queue("create-volume")
    pod = finetune.pod_name("create-volume")
    name = f"{finetune.workflow.name}(0).root(0).exit-handler-1(0).create-volume(0).executor(0)"
    assert pod == f"{finetune.workflow.name}-system-container-impl-{hashed(name)}"
    assert ask(server, "GET", log_path(finetune, pod))[0] == 500, "it does not run yet"
    finetune.start("create-volume")
    assert ask(server, "GET", log_path(finetune, pod)) == (200, "text/plain", b"")
    finetune.log("create-volume", "one", "two")
    assert ask(server, "GET", log_path(finetune, pod)) == (200, "text/plain", b"one\ntwo\n")
    status, _, body = ask(server, "GET", log_path(finetune, finetune.node_id("create-volume")))
    assert (status, body.keys()) == (500, {"error_message", "error_details"})
    finetune.finish("create-volume")
    finetune.lose_pods("create-volume")
    assert "not found" in ask(server, "GET", log_path(finetune, pod))[2]["error_message"]


def test_archived_logs_are_found_by_the_id_of_the_node() -> None:
    with kfp.serve(archives_logs=True) as server:
        given = {"dataset": "d", "model": "m"}
        made = kfp_client.Client(host=server.url).create_run_from_pipeline_package(str(FINETUNE), given)
        run = server.run(made.run_id)
        run.start("create-volume")
        run.log("create-volume", "one")
        assert ask(server, "GET", log_path(run, run.node_id("create-volume")))[0] == 500, "it still runs"
        run.finish("create-volume")
        run.lose_pods()
        assert ask(server, "GET", log_path(run, run.pod_name("create-volume")))[0] == 500
        assert ask(server, "GET", log_path(run, run.node_id("create-volume")))[2] == b"one\n"


def test_artifacts_come_from_the_ui_alone() -> None:
    path = "/artifacts/get?source=minio&namespace=kubeflow&bucket=mlpipeline&key=v2/artifacts/a%20b"
    with kfp.serve(address="ui") as server:
        server.artifacts["v2/artifacts/a b"] = b"\x00bytes"
        assert ask(server, "GET", path) == (200, "application/octet-stream", b"\x00bytes")
        assert ask(server, "GET", path + "/none")[0] == 404
        server.address = "api"
        assert ask(server, "GET", path)[0] == 404


def test_the_ui_has_its_own_route_to_logs(server: kfp.Server, finetune: kfp.Run) -> None:
    server.address = "ui"
    finetune.start("create-volume")
    finetune.log("create-volume", "one")
    pod = finetune.pod_name("create-volume")
    path = f"/k8s/pod/logs?podname={pod}&runid={finetune.id}"
    assert ask(server, "GET", path) == (200, "text/plain; charset=utf-8", b"one\n")
    assert ask(server, "GET", log_path(finetune, pod))[0] == 404
    finetune.finish("create-volume")
    finetune.lose_pods()
    assert ask(server, "GET", path)[0] == 500
    server.store.archives_logs = True
    assert ask(server, "GET", path)[2] == b"one\n"
    server.address = "api"
    assert ask(server, "GET", path)[0] == 404


# What it refuses


@pytest.mark.parametrize(
    ("given", "refusal"),
    [
        ({}, "parameter name is not optional, yet has neither default value nor user provided value"),
        ({"name": 1}, "input parameter name requires type string, but the input parameter is not of string"),
        ({"name": "x", "fast": 1}, "input parameter fast requires type bool"),
        ({"name": "x", "seconds": True}, "input parameter seconds requires type double or integer"),
        ({"name": "x", "names": {}}, "input parameter names requires type list"),
        ({"name": "x", "options": []}, "input parameter options requires type struct"),
        ({"name": "x", "more": 1}, "parameter(s) provided are not required by pipeline: more"),
        ({"name": "x", "seconds": 2.0, "share": 1, "fast": True, "names": [1], "options": {"a": 1}}, ""),
    ],
)
def test_parameters_are_checked(server: kfp.Server, package: str, given: dict[str, Any], refusal: str) -> None:
    spec = yaml.safe_load(Path(package).read_text())
    run = {"display_name": "r", "pipeline_spec": spec, "runtime_config": {"parameters": given}}
    status, _, body = ask(server, "POST", f"{API}/runs", run)
    assert status == (400 if refusal else 200)
    assert refusal in body.get("message", "")
    schedule = {"mode": "ENABLE", "max_concurrency": 1, "trigger": {"cron_schedule": {"cron": "@daily"}}}
    assert ask(server, "POST", f"{API}/recurringruns", run | schedule)[0] == status


@pytest.mark.parametrize(
    ("cron", "refusal"),
    [
        ("0 0 3 * * *", ""),
        ("0 0 3 * *", ""),
        ("*/10 1-5,7 ? jan-mar MON", "Expected"),
        ("*/10 0 1-5,7 ? jan-mar MON", ""),
        ("@every 1h30m", ""),
        ("@sometimes", "Unrecognized descriptor: @sometimes"),
        ("60 0 3 * * *", "End of range (60) above maximum (59): 60"),
        ("0 0 3 0 * *", "Beginning of range (0) below minimum (1): 0"),
        ("0 0 5-3 * * *", "Beginning of range (5) beyond end of range (3): 5-3"),
        ("0 0 x * * *", "Failed to parse int from x"),
        ("0 0 3 * * * *", "Expected 5 to 6 fields, found 7"),
    ],
)
def test_schedules_are_checked(server: kfp.Server, package: str, cron: str, refusal: str) -> None:
    spec = yaml.safe_load(Path(package).read_text())
    asked = {"display_name": "r", "pipeline_spec": spec, "runtime_config": {"parameters": {"name": "x"}}}
    asked |= {"mode": "ENABLE", "max_concurrency": 1, "trigger": {"cron_schedule": {"cron": cron}}}
    status, _, body = ask(server, "POST", f"{API}/recurringruns", asked)
    if cron == "*/10 1-5,7 ? jan-mar MON":
        assert "Failed to parse int from jan" in body["message"], "the first of five fields is for seconds"
        return
    assert status == (400 if refusal else 200)
    assert refusal in body.get("message", "")


def test_lists_come_in_pages(server: kfp.Server) -> None:
    for number in range(5):
        ask(server, "POST", f"{API}/experiments", {"display_name": f"e{number}"})
    path = f"{API}/experiments?page_size=2&sort_by=created_at%20desc"
    first = ask(server, "GET", path)[2]
    assert first["total_size"] == 6
    ask(server, "POST", f"{API}/experiments", {"display_name": "new"})  # which moves nothing that comes after
    second = ask(server, "GET", f"{path}&page_token={first['next_page_token']}")[2]
    third = ask(server, "GET", f"{path}&page_token={second['next_page_token']}")[2]
    assert "next_page_token" not in third
    names = [each["display_name"] for page in (first, second, third) for each in page["experiments"]]
    assert names == ["e4", "e3", "e2", "e1", "e0", "Default"]
    token = first["next_page_token"]
    for query in f"page_token={token}&sort_by=display_name", "page_token=bad", "sort_by=shoe", "filter=bad":
        assert ask(server, "GET", f"{API}/experiments?{query}")[0] == 400
    assert ask(server, "GET", f"{API}/experiments?{equals('shoe', 'x')}")[0] == 400


def test_an_experiments_name_is_taken_once(server: kfp.Server) -> None:
    assert ask(server, "POST", f"{API}/experiments", {"display_name": "e"})[0] == 200
    status, _, body = ask(server, "POST", f"{API}/experiments", {"display_name": "e"})
    assert (status, "The name e already exists" in body["message"]) == (409, True)


def test_what_is_not_there(server: kfp.Server) -> None:
    for path in "pipelines/x", "pipelines/x/versions", "pipelines/x/versions/y", "experiments/x", "recurringruns/x":
        assert ask(server, "GET", f"{API}/{path}")[0] == 404
    run = {"display_name": "r", "pipeline_version_reference": {"pipeline_id": "x", "pipeline_version_id": "y"}}
    status, _, body = ask(server, "POST", f"{API}/runs", run)
    assert (status, body["details"][0]["message"]) == (500, "Internal Server Error")


def test_what_it_does_not_know_fails_the_test() -> None:
    with pytest.raises(AssertionError, match="GET /apis/v2beta1/news"), kfp.serve() as server:
        assert ask(server, "GET", f"{API}/news")[0] == 404
    with pytest.raises(AssertionError, match="POST /apis/v2beta1/recurringruns"), kfp.serve() as server:
        assert ask(server, "POST", f"{API}/recurringruns", {"max_concurrency": 1, "trigger": {"moon": {}}})[0] == 501


# Who may ask


BEARER = {"Authorization": "Bearer good"}


def test_a_proxy_in_front_refuses_a_token_at_any_time(server: kfp.Server) -> None:
    server.tokens = {"good"}
    assert ask(server, "GET", f"{API}/runs")[0] == 401
    assert ask(server, "GET", f"{API}/runs", headers=BEARER)[0] == 200
    server.tokens = {"newer"}
    assert ask(server, "GET", f"{API}/healthz", headers=BEARER) == (401, "text/plain", b"Jwt is expired")
    server.gate = "dex"
    status, kind, body = ask(server, "GET", f"{API}/runs", headers=BEARER)  # after a redirect
    assert (status, kind) == (200, "text/html; charset=utf-8")
    assert b"Log in" in body


def test_rights_are_those_of_namespaces() -> None:
    with kfp.serve(multi_user=True, tokens={"good"}) as server:
        assert ask(server, "GET", f"{API}/healthz")[2]["multi_user"] is True
        for path in "runs", "experiments", "recurringruns":
            status, _, body = ask(server, "GET", f"{API}/{path}?namespace=team")
            assert (status, body["code"]) == (401, 16)
            status, _, body = ask(server, "GET", f"{API}/{path}", headers=BEARER)
            assert (status, "cannot have an empty namespace" in body["message"]) == (400, True)
            status, _, body = ask(server, "GET", f"{API}/{path}?namespace=other", headers=BEARER)
            assert (status, body["code"]) == (403, 7)
            assert "User 'user@example.com' is not authorized" in body["details"][0]["message"]
            assert ask(server, "GET", f"{API}/{path}?namespace=team", headers=BEARER)[0] == 200
        made = ask(server, "POST", f"{API}/experiments", {"display_name": "e", "namespace": "team"}, BEARER)[2]
        assert made["namespace"] == "team"
        run = {"display_name": "r", "pipeline_spec": SPECS["small"]}
        assert ask(server, "POST", f"{API}/runs", run, BEARER)[0] == 400
        run = ask(server, "POST", f"{API}/runs", run | {"experiment_id": made["experiment_id"]}, BEARER)[2]
        assert run["service_account"] == "default-editor"
        server.namespaces = set()
        assert ask(server, "GET", f"{API}/runs/{run['run_id']}", headers=BEARER)[0] == 403
        assert ask(server, "POST", f"{API}/runs/{run['run_id']}:terminate", headers=BEARER)[0] == 403
        assert ask(server, "GET", f"/apis/v1alpha1/runs/{run['run_id']}/nodes/n/log", headers=BEARER)[0] == 403


def test_pipelines_without_a_namespace_are_shared() -> None:
    with kfp.serve(multi_user=True, tokens={"good"}) as server:
        content = yaml.safe_dump(SPECS["small"]).encode()
        assert upload(server, f"{API}/pipelines/upload?name=all", content, BEARER)[0] == 200
        assert upload(server, f"{API}/pipelines/upload?name=mine&namespace=team", content, BEARER)[0] == 200
        assert upload(server, f"{API}/pipelines/upload?name=x&namespace=other", content, BEARER)[0] == 400
        for query, names in ("", ["all"]), ("?namespace=team", ["mine"]):
            found = ask(server, "GET", f"{API}/pipelines{query}", headers=BEARER)[2]["pipelines"]
            assert [each["name"] for each in found] == names
        assert ask(server, "GET", f"{API}/pipelines?namespace=other", headers=BEARER)[0] == 403


def test_it_speaks_tls_behind_a_path(tmp_path: Path) -> None:
    certificate = write_certificate(tmp_path)
    with kfp.serve(tls=certificate, prefix="/pipeline") as server:
        client = kfp_client.Client(host=server.url, ssl_ca_cert=str(certificate[0]))
        assert client.list_experiments().total_size == 1
        assert server.requests[-1].path == "/pipeline/apis/v2beta1/experiments"
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            ask(server, "GET", f"{API}/healthz")


# Faults


def experiment_names(server: kfp.Server) -> list[str]:
    return [each["display_name"] for each in server.store.experiments.values()]


def test_statuses_on_demand(server: kfp.Server) -> None:
    server.fail("GET", "/experiments$", 503, times=2)
    server.fail("GET", "/experiments$", faults.page())
    server.fail("POST", "/experiments$", faults.status(429, retry_after=7))
    assert [ask(server, "GET", f"{API}/{path}")[0] for path in ("experiments", "runs", "experiments")] == [
        503,
        200,
        503,
    ]
    assert ask(server, "GET", f"{API}/experiments")[:2] == (502, "text/html")
    assert ask(server, "GET", f"{API}/experiments")[0] == 200
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(server.url + f"{API}/experiments", json.dumps({"display_name": "e"}).encode(), 10)
    assert (refused.value.code, refused.value.headers["Retry-After"]) == (429, "7")
    assert experiment_names(server) == ["Default"]
    assert len(server.requests) == 6


@pytest.mark.parametrize(
    ("fault", "problem", "made"),
    [
        (faults.drop, http.client.RemoteDisconnected, ["Default"]),
        (faults.lose_answer, http.client.RemoteDisconnected, ["Default", "e"]),
        (faults.cut, http.client.IncompleteRead, ["Default", "e"]),
    ],
)
def test_connections_that_break(server: kfp.Server, fault: Any, problem: type[Exception], made: list[str]) -> None:
    server.fail("POST", "/experiments$", fault)
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)  # which stays open
    connection.request("POST", f"{API}/experiments", json.dumps({"display_name": "e"}))
    with pytest.raises(problem), contextlib.closing(connection):
        connection.getresponse().read()
    assert experiment_names(server) == made
    assert ask(server, "POST", f"{API}/experiments", {"display_name": "f"})[0] == 200


def test_an_answer_that_waits_for_the_test(server: kfp.Server) -> None:
    stall, statuses = faults.Stall(), []
    server.fail("GET", "/runs$", stall)
    waiting = threading.Thread(target=lambda: statuses.append(ask(server, "GET", f"{API}/runs")[0]))
    waiting.start()
    assert stall.begun.wait(30)
    assert ask(server, "GET", f"{API}/runs")[0] == 200, "others are answered meanwhile"
    assert statuses == []
    stall.over.set()
    waiting.join(30)
    assert statuses == [200]
