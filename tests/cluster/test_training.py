"""Trainings on two nodes of a real cluster, and everything that happens to their pods and steps meanwhile.

The steps run in pods of the train image, with the rights of manifests/rbac and no others.
"""

import json
import re
import uuid
from pathlib import Path

import pytest
from cluster.pods import log, phase, run_to_its_end, start_pipeline, start_pod
from kubernetes import client

from kfp_finetune.launch.trainjob.jobs import find_job
from kfp_finetune.launch.trainjob.lease import holders
from kfp_finetune.launch.trainjob.names import JOBSET_LABEL, NODE_LABEL

pytestmark = pytest.mark.xdist_group("trainings")  # two at once would take each other's processors

PIPELINE = Path(__file__).parents[2] / "pipelines/torchtune_finetune/pipeline.yaml"

STEP = """
import json, sys
from kfp_finetune.components.torchtune_train.train import WORKER
from kfp_finetune.training.cluster import read_request, train_on_cluster
from kfp_finetune.training.plan import read_plan
from kfp_finetune.errors import clear_errors
from kfp_finetune.workspace import open_workspace

with clear_errors():
    plan = read_plan(open_workspace("/workspace").training(sys.argv[1]))
    job = json.loads(sys.argv[2])
    request = read_request("torch-distributed", sys.argv[3], sys.argv[4], "", job, None)
    outcome = train_on_cluster(plan, WORKER, request, sys.argv[5])
    print("ended", len(outcome.metrics), outcome.summary.final_loss, flush=True)
"""
"""What the step torchtune_trainjob does, with the plan that is on the volume."""

PLAN = """
import json, sys
sys.path.insert(0, "/scripts")
from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset
from kfp_finetune.components.initialize_model.model import initialize_model
from kfp_finetune.components.torchtune_train.planning import make_plan

root = "/workspace"
dataset = initialize_dataset("/workspace/in/rows.jsonl", root)
model = initialize_model("/workspace/in/base", root)
for settings in json.loads(sys.argv[1]):
    print("key", make_plan(dataset, model, "series", settings, root).plan.key, flush=True)
"""

SETTINGS = {"dtype": "fp32", "max_seq_len": 128, "batch_size": 2, "learning_rate": 5e-3, "num_nodes": 2}
EPOCHS = 25
"""So many that a training outlasts what is done to it meanwhile."""

GOES_ON = re.compile(rf"begins at epoch (?!1 )\d+ of {EPOCHS}\b")

JOB = {"env": {"OMP_NUM_THREADS": "1"}}


@pytest.fixture(scope="module")
def execute(site, eventually):
    """Run a Python script in a pod of the train image; return what it prints."""

    def go(script, *arguments):
        pod = start_pod(site, ["python", "/scripts/main.py", *arguments], {"main.py": script})
        printed = run_to_its_end(site, eventually, pod)
        assert phase(site, pod) == "Succeeded", printed
        return printed

    return go


@pytest.fixture(scope="module")
def keys(execute):
    """Plan all trainings of this module in one pod; return their keys by the seed that tells them apart."""
    seeds = {"undisturbed": 1, "step killed": 2, "pod deleted": 1, "terminated": 3, "api server": 4}
    settings = [SETTINGS | {"epochs": EPOCHS, "advanced": {"seed": seed}} for seed in seeds.values()]
    # The same training, told apart by what does not shape it but is in its key.
    settings[2]["advanced"]["keep_last_n_checkpoints"] = 3
    printed = re.findall(r"^key (\w+)$", execute(PLAN, json.dumps(settings)), re.MULTILINE)
    return dict(zip(seeds, printed, strict=True))


@pytest.fixture
def begin(site):
    """Start a step that waits for a training; return its pod."""

    def go(key, run="", **job):
        run = run or uuid.uuid4().hex
        arguments = [key, json.dumps(JOB | job), site.image, site.claim, run]
        return start_pod(site, ["python", "/scripts/main.py", *arguments], {"main.py": STEP})

    return go


@pytest.fixture(scope="module")
def losses(execute):
    """Return a function that reads the loss of each step of a training from the volume."""

    def read(key, root="/workspace"):
        printed = execute(f"print(open('{root}/trainings/{key}/metrics.jsonl').read())")
        rows = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
        return [row["loss"] for row in sorted({row["step"]: row for row in rows}.values(), key=lambda row: row["step"])]

    return read


def steps_done(site, pod):
    try:
        return [int(done) for done in re.findall(r'"what": "train", "done": (\d+)', log(site, pod))]
    except client.ApiException:
        return []


def training_pods(site, key):
    selector = f"{JOBSET_LABEL}=finetune-{key}"
    return site.core.list_namespaced_pod(site.cluster.namespace, label_selector=selector).items


def test_two_nodes_train_what_two_processes_do_to_a_verified_export(site, eventually, losses, execute):
    arguments = {
        "model": "/workspace/in/base",
        "dataset": "/workspace/in/rows.jsonl",
        "create_volume": False,
        "volume": site.claim,
        "accelerator": "",
        "train_image": site.image,
        "dtype": "fp32",
        "max_seq_len": 128,
        "batch_size": 2,
        "epochs": 2,
    }
    on_nodes = {"launcher": "trainjob", "num_nodes": 2, "num_procs_per_node": 1, "trainjob": JOB}
    printed = run_to_its_end(site, eventually, start_pipeline(site, PIPELINE, arguments | on_nodes), 300)
    assert "'torchtune-finetune'\x1b[0m finished with status \x1b[92mSUCCESS" in printed, printed[-5000:]
    key = re.search(r"TrainJob finetune-(\w+): created", printed)[1]
    assert f"TrainJob finetune-{key}: deleted; its checkpoints are kept" in printed
    on_a_laptop = {"num_procs_per_node": 2, "workspace": "/workspace/laptop"}
    laptop = run_to_its_end(site, eventually, start_pipeline(site, PIPELINE, arguments | on_a_laptop), 300)
    assert f"training {key} begins at epoch 1 of 2" in laptop, laptop[-5000:]
    assert losses(key) == pytest.approx(losses(key, "/workspace/laptop"), abs=1e-5)
    merged = f"/workspace/exports/{key}/merged"
    load = f"from transformers import AutoModelForCausalLM as M; print(M.from_pretrained('{merged}').num_parameters())"
    assert int(execute(load).splitlines()[-1]) > 0
    nodes = execute(f"import os; print(sorted(os.listdir('/workspace/trainings/{key}/logs')))")
    assert "node-0" in nodes and "node-1" in nodes


def test_a_step_that_is_killed_and_started_again_goes_on_where_it_was(site, eventually, begin, keys):
    key, run = keys["step killed"], uuid.uuid4().hex
    first = begin(key, run)
    eventually(lambda: len(steps_done(site, first)) > 2, 120)
    uid = find_job(site.cluster, f"finetune-{key}")["metadata"]["uid"]
    before = log(site, first)
    site.core.delete_namespaced_pod(first, site.cluster.namespace, grace_period_seconds=0)
    after = run_to_its_end(site, eventually, begin(key, run))
    assert f"TrainJob finetune-{key}: found; it is followed" in after and "ended" in after, after[-4000:]
    assert find_job(site.cluster, f"finetune-{key}")["metadata"]["uid"] == uid
    lines = [line for text in (before, after) for line in text.splitlines() if line.startswith("progress")]
    assert len(lines) == len(set(lines))
    assert '"eta_seconds": 0.0' in lines[-1]


def test_a_training_pod_that_is_deleted_costs_no_more_than_its_epoch(site, eventually, begin, keys, losses):
    undisturbed = begin(keys["undisturbed"])
    assert "ended" in run_to_its_end(site, eventually, undisturbed)
    key = keys["pod deleted"]
    step = begin(key)
    eventually(lambda: max(steps_done(site, step), default=0) > 20, 120)
    victim = next(pod for pod in training_pods(site, key) if pod.metadata.labels[NODE_LABEL] == "1")
    site.core.delete_namespaced_pod(victim.metadata.name, site.cluster.namespace, grace_period_seconds=0)
    printed = run_to_its_end(site, eventually, step)
    assert "another can mend it" in printed and "ended" in printed, printed[-4000:]
    assert GOES_ON.search(printed)
    assert losses(key) == pytest.approx(losses(keys["undisturbed"]), abs=1e-5)


def test_a_run_that_is_terminated_leaves_checkpoints_and_nothing_else(site, eventually, begin, keys, execute):
    key, run = keys["terminated"], uuid.uuid4().hex
    step = begin(key, run)
    eventually(lambda: max(steps_done(site, step), default=0) > 20, 120)
    site.core.delete_namespaced_pod(step, site.cluster.namespace, grace_period_seconds=1)
    assert holders(find_job(site.cluster, f"finetune-{key}")) == {run}
    exit_task = f"from kfp_finetune.components.clean_up.leftovers import *; stop_trainings('{run}', 'trainjob')"
    assert f"TrainJob finetune-{key}: deleted; its checkpoints are kept" in execute(exit_task)
    eventually(lambda: find_job(site.cluster, f"finetune-{key}") is None and not training_pods(site, key), 60)
    printed = run_to_its_end(site, eventually, begin(key))
    assert GOES_ON.search(printed) and "ended" in printed


@pytest.mark.disruptive
def test_an_api_server_that_goes_away_for_a_while_costs_nothing(site, eventually, begin, keys, api_server):
    key = keys["api server"]
    step = begin(key)
    eventually(lambda: len(steps_done(site, step)) > 2, 120)
    api_server("kill")
    try:
        # As long as a restart of a control plane's node takes.
        with pytest.raises(AssertionError, match="not so within"):
            eventually(lambda: False, 20)
    finally:
        api_server("start")
    eventually(lambda: answers(site), 120)
    printed = run_to_its_end(site, eventually, step)
    lines = [line for line in printed.splitlines() if line.startswith("progress")]
    assert "ended" in printed and len(lines) == len(set(lines)), printed[-4000:]
    assert printed.count("created in namespace") == 1


def answers(site):
    try:
        return site.core.read_namespace(site.cluster.namespace)
    except Exception:
        return None
