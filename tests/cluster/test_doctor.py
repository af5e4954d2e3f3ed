"""`kfp-finetune doctor` on a real cluster, under accounts that lack something."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import uuid
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from accounts import all_but, connect_as, holding
from kubernetes import client

from kfp_finetune.client.doctor.examine import Question, examine
from kfp_finetune.client.doctor.report import State
from kfp_finetune.cluster.client import BoundedClient, Cluster, acting_as
from kfp_finetune.cluster.ownership import MANAGED_BY
from kfp_finetune.cluster.rights import STEP_RIGHTS, Right, account_name, missing_rights
from kfp_finetune.cluster.trainer import GROUP, NAMESPACE_RUNTIME, VERSION, find_runtime, list_runtimes, trainjob_fields
from kfp_finetune.errors import UserError
from kfp_finetune.launch.trainjob.names import HEARTBEAT_PREFIX, RUN_PREFIX

KFP_FINETUNE = Path(sys.executable).parent / "kfp-finetune"
QUESTION = Question("torch-distributed")
CREATE_JOBS, PATCH_JOBS = STEP_RIGHTS[0], STEP_RIGHTS[4]


@pytest.fixture
def core(cluster):
    return client.CoreV1Api(cluster.api)


@pytest.fixture
def objects(cluster):
    return client.CustomObjectsApi(cluster.api)


def amiss(report):
    """What did not pass, but for the nodes, which the steps need not see."""
    return [check for check in report.checks if check.state != State.PASS and not check.name.startswith("GPUs")]


def named(report, name):
    (check,) = [check for check in report.checks if check.name == name]
    return check


def test_the_rights_of_the_steps_are_enough(holder):
    report = examine(holder(STEP_RIGHTS), QUESTION)
    assert amiss(report) == []
    assert report.ok
    assert named(report, "GPUs nvidia.com/gpu").found == "unknown without the right to list nodes in the whole cluster"


@pytest.mark.parametrize("right", STEP_RIGHTS, ids=str)
def test_a_missing_right_is_named_and_no_other(cluster, holder, right):
    account = holder(all_but(right))
    assert missing_rights(account) == (right,)
    report = examine(account, QUESTION)
    (check, *unknown) = amiss(report)
    assert check.found == f"missing: {right}; needed to {right.needed_for}"
    assert check.state == (State.WARN if right.optional else State.FAIL)
    assert report.ok == right.optional
    for one in (check, *unknown):
        assert re.findall(r"--verb=(\S+) --resource=(\S+) ", one.mend) == [(right.verb, right.resource)]
    assert all(one.state == State.WARN for one in unknown)


@pytest.mark.parametrize("right", [PATCH_JOBS, Right("list", f"clustertrainingruntimes.{GROUP}", False, "")], ids=str)
def test_the_command_that_is_shown_grants_the_right(cluster, eventually, holder, right):
    if not shutil.which("kubectl"):
        reason = "kubectl, which is what the command runs, is not on PATH"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    (lost,) = [one for one in STEP_RIGHTS if str(one) == str(right)]
    account = holder(all_but(lost))
    (check, *_) = amiss(examine(account, QUESTION))
    command = check.mend.removeprefix("Let an administrator run: ")
    names = re.findall(r"create (\w+) (\S+) ", command)
    try:
        subprocess.run(command, shell=True, check=True)
        eventually(lambda: not missing_rights(account))
    finally:
        for kind, name in names:
            subprocess.run(["kubectl", "-n", cluster.namespace, "delete", kind, name], check=True)


def test_an_account_without_rights_learns_every_one_at_once(holder):
    report = examine(holder(()), QUESTION)
    lacking = [check for check in report.checks if check.name == "right"]
    assert [check.found.split(";")[0] for check in lacking] == [f"missing: {right}" for right in STEP_RIGHTS]


def test_runtimes_are_listed_with_whether_they_fit(cluster):
    report = examine(cluster, QUESTION)
    fits = {runtime.name: runtime.unfit for runtime in report.runtimes}
    assert fits["torch-distributed"] == ""
    for name, why in {"jax-distributed": "mlPolicy is not torch", "torchtune-llama3.2-1b": "waits for jobs"}.items():
        if name in fits:
            assert why in fits[name]


def test_a_runtime_that_is_not_there_is_told_with_those_that_are(cluster):
    check = named(examine(cluster, Question("no-such-runtime")), "runtime no-such-runtime")
    assert check.state == State.FAIL
    assert "one for torch that the cluster has:" in check.found and "torch-distributed" in check.found


@pytest.fixture
def own_runtime(cluster, objects):
    """Make runtimes in the namespace: copies of torch-distributed with a change."""
    made = []

    def make(name, change):
        body = objects.get_cluster_custom_object(GROUP, VERSION, "clustertrainingruntimes", "torch-distributed")
        body |= {"kind": NAMESPACE_RUNTIME, "metadata": {"name": name}}
        change(body["spec"])
        objects.create_namespaced_custom_object(GROUP, VERSION, cluster.namespace, "trainingruntimes", body)
        made.append(name)

    yield make
    for name in made:
        objects.delete_namespaced_custom_object(GROUP, VERSION, cluster.namespace, "trainingruntimes", name)


def test_a_runtime_of_the_namespace_hides_that_of_the_cluster(cluster, own_runtime):
    own_runtime("torch-distributed", lambda spec: None)
    assert find_runtime(cluster, "torch-distributed") == NAMESPACE_RUNTIME
    (listed,) = [one for one in examine(cluster, QUESTION).runtimes if one.name == "torch-distributed"]
    assert listed.kind == NAMESPACE_RUNTIME


def job_of(spec):
    return spec["template"]["spec"]["replicatedJobs"][0]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda spec: spec["mlPolicy"].pop("torch"), "its mlPolicy is not torch"),
        (lambda spec: job_of(spec).update(name="other"), "it has no replicated job 'node'"),
        (lambda spec: job_of(spec)["template"]["metadata"].pop("labels"), "lacks the label"),
    ],
    ids=["not torch", "no job node", "no label"],
)
def test_a_runtime_that_does_not_fit_is_refused_with_the_reason(cluster, own_runtime, change, why):
    own_runtime("other", change)
    with pytest.raises(UserError, match=f"runtime: given 'other', which does not fit: .*{re.escape(why)}"):
        find_runtime(cluster, "other")


def test_the_fields_of_a_trainjob_can_be_read_without_any_right(cluster, holder):
    fields = trainjob_fields(holder(()))
    assert {"runtimeRef", "trainer", "activeDeadlineSeconds"} <= fields
    assert fields == trainjob_fields(cluster)


class WithoutGroup(BaseHTTPRequestHandler):
    """Hands requests on to the API server, but asks for another API group than one, which it does not have."""

    protocol_version = "HTTP/1.1"
    cluster: Cluster
    group: str

    def do_GET(self):
        self.hand_on(None)

    def do_POST(self):
        self.hand_on(self.rfile.read(int(self.headers["Content-Length"])))

    def hand_on(self, body):
        api = self.cluster.api
        headers = {name: self.headers[name] for name in ("Accept", "Content-Type") if self.headers[name]}
        api.update_params_for_auth(headers, [], ["BearerToken"])
        url = api.configuration.host + self.path.replace(self.group, "absent.example.com")
        answer = api.rest_client.pool_manager.request(self.command, url, headers=headers, body=body)
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
        self.send_header("Content-Length", str(len(answer.data)))
        self.end_headers()
        self.wfile.write(answer.data)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def without(cluster):
    """Connect to the cluster as if an API group were not installed in it."""
    with ExitStack() as servers:

        def connect(group):
            handler = type("Handler", (WithoutGroup,), {"cluster": cluster, "group": group})
            server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
            servers.callback(server.server_close)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            servers.callback(server.shutdown)
            settings = client.Configuration(host=f"http://127.0.0.1:{server.server_port}")
            return Cluster(BoundedClient(settings), cluster.namespace)

        yield connect


def test_a_cluster_without_trainer_is_told_how_to_install_it_once(without):
    cluster = without(GROUP)
    report = examine(cluster, QUESTION)
    (check,) = amiss(report)
    assert (check.name, check.state) == ("Kubeflow Trainer", State.FAIL)
    assert check.found.startswith("a cluster without it")
    assert check.mend.count("kubectl apply --server-side -k ") == 2
    for look in (trainjob_fields, list_runtimes, lambda where: find_runtime(where, "torch-distributed")):
        with pytest.raises(UserError, match="Kubeflow Trainer: given a cluster without it"):
            look(cluster)


def test_a_cluster_without_jobset_is_told_so(without):
    (check,) = amiss(examine(without("jobset.x-k8s.io"), QUESTION))
    assert (check.name, check.state) == ("JobSet", State.FAIL)


def test_a_cluster_with_another_version_of_trainer_is_told_which(without):
    with pytest.raises(UserError, match=r"a cluster that serves trainer.kubeflow.org in v1alpha1 only"):
        trainjob_fields(without("openapi/v3/apis/trainer.kubeflow.org"))


def test_a_secret_is_there_or_not_and_without_the_right_unknown(cluster, core, holder):
    core.create_namespaced_secret(
        cluster.namespace, client.V1Secret(metadata=client.V1ObjectMeta(name="there"), string_data={"token": "hidden"})
    )
    question = Question("torch-distributed", secrets=("there", "absent"))
    report = examine(cluster, question)
    assert named(report, "secret there").state == State.PASS
    assert named(report, "secret absent").state == State.FAIL
    assert f"kubectl -n {cluster.namespace} create secret generic absent" in named(report, "secret absent").mend
    unknown = named(examine(holder(STEP_RIGHTS), question), "secret there")
    assert unknown.state == State.WARN and "may not read Secrets" in unknown.found


@pytest.fixture
def claim(cluster, core, eventually):
    """A claim of the default class, bound to a volume."""
    name = f"volume-{uuid.uuid4().hex[:8]}"
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Mi"}}}
    core.create_namespaced_persistent_volume_claim(cluster.namespace, {"metadata": {"name": name}, "spec": spec})

    def bound():
        found = core.read_namespaced_persistent_volume_claim(name, cluster.namespace)
        return found if found.status.phase == "Bound" else None

    yield eventually(bound, 120)
    core.delete_namespaced_persistent_volume_claim(name, cluster.namespace)


def test_access_modes_are_those_that_a_volume_has_shown(cluster, claim):
    (storage,) = [
        one for one in examine(cluster, QUESTION).storage_classes if one.name == claim.spec.storage_class_name
    ]
    assert storage.default
    assert storage.access_modes == "ReadWriteMany; others unknown until tried"


def test_access_modes_that_no_volume_has_shown_are_unknown(cluster):
    storage = client.StorageV1Api(cluster.api)
    name = f"kfp-finetune-test-{uuid.uuid4().hex[:8]}"
    body = {"metadata": {"name": name}, "provisioner": "kfp-finetune.test/none"}
    storage.create_storage_class(body)
    try:
        (found,) = [one for one in examine(cluster, QUESTION).storage_classes if one.name == name]
    finally:
        storage.delete_storage_class(name)
    assert (found.default, found.access_modes) == (False, "unknown until tried")


def test_gpus_that_no_node_has_fail_only_where_they_are_asked_for(cluster):
    absent = "kfp-finetune.test/gpu"
    assert named(examine(cluster, Question("torch-distributed", gpu=absent)), f"GPUs {absent}").state == State.FAIL
    present = named(examine(cluster, Question("torch-distributed", gpu="cpu")), "GPUs cpu")
    assert present.state == State.PASS and " in all, at most " in present.found


@pytest.fixture
def put_job(cluster, objects):
    """Create suspended TrainJobs as a step may have left them."""
    made = []

    def put(name, labels, minutes):
        beat = (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat(timespec="seconds").replace("+00:00", "Z")
        job = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "TrainJob",
            "metadata": {
                "name": name,
                "labels": {f"{RUN_PREFIX}run": "holds"} | labels,
                "annotations": {f"{HEARTBEAT_PREFIX}run": beat},
            },
            "spec": {"runtimeRef": {"name": "torch-distributed"}, "suspend": True},
        }
        objects.create_namespaced_custom_object(GROUP, VERSION, cluster.namespace, "trainjobs", job)
        made.append(name)

    yield put
    for name in made:
        objects.delete_namespaced_custom_object(GROUP, VERSION, cluster.namespace, "trainjobs", name)


def test_jobs_whose_step_is_gone_are_listed_with_the_command_that_deletes_them(cluster, put_job):
    put_job("left", MANAGED_BY, minutes=16)
    put_job("waited-for", MANAGED_BY, minutes=14)
    put_job("foreign", {}, minutes=16)
    report = examine(cluster, QUESTION)
    assert report.abandoned == ["left"]
    check = named(report, "jobs without a step")
    assert check.state == State.WARN
    assert check.mend.endswith(f"kubectl -n {cluster.namespace} delete trainjobs.trainer.kubeflow.org left")


@pytest.fixture
def doctor(cluster, tmp_path):
    """Run the command as an account of the cluster."""

    def run(account, *arguments):
        settings = account.api.configuration
        written = {
            "clusters": [{"name": "it", "cluster": {"server": settings.host}}],
            "users": [{"name": "it", "user": {"token": settings.api_key["authorization"].removeprefix("Bearer ")}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it", "namespace": account.namespace}}],
            "current-context": "it",
        }
        if settings.ssl_ca_cert:
            written["clusters"][0]["cluster"]["certificate-authority"] = settings.ssl_ca_cert
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(written))
        env = os.environ | {"KUBECONFIG": str(path), "COLUMNS": "150"}
        return subprocess.run([KFP_FINETUNE, "doctor", *arguments], env=env, capture_output=True, text=True)

    return run


def test_the_command_ends_with_0_and_prints_what_json_holds(holder, doctor):
    account = holder(STEP_RIGHTS)
    shown, as_json = doctor(account), doctor(account, "--json")
    assert (shown.returncode, as_json.returncode) == (0, 0), shown.stderr + as_json.stderr
    report = json.loads(as_json.stdout)
    assert report["ok"]
    for check in report["checks"]:
        assert re.search(rf"^{check['state']} +{re.escape(check['name'])} ", shown.stdout, re.MULTILINE)
        assert check["mend"] in shown.stdout


def test_the_command_ends_with_1_and_shows_a_whole_command_to_copy(cluster, holder, doctor):
    account = holder(all_but(CREATE_JOBS))
    ended = doctor(account)
    assert ended.returncode == 1
    (check, *_) = amiss(examine(account, QUESTION))
    assert check.mend in ended.stdout
    assert json.loads(doctor(account, "--json").stdout)["ok"] is False


def test_the_namespace_can_be_another_one(cluster, doctor):
    name = f"kfp-finetune-test-admin-{uuid.uuid4().hex[:8]}"
    rights = (Right("get", "namespaces", False, "find a namespace"),)
    with holding(cluster, rights) as account:
        absent = json.loads(doctor(account, "--namespace", name, "--json").stdout)
        there = json.loads(doctor(account, "--namespace", "default", "--json").stdout)
    assert [check for check in absent["checks"] if check["name"] == "namespace"] == [
        {
            "name": "namespace",
            "state": "fail",
            "found": f"{name}, which does not exist",
            "mend": f"Create it (kubectl create namespace {name}), or name another one with --namespace.",
        }
    ]
    assert {"name": "namespace", "state": "pass", "found": "default", "mend": ""} in there["checks"]


def test_rejected_credentials_are_one_message_and_status_2(cluster, doctor):
    account = connect_as(cluster, "default")
    account.api.configuration.api_key["authorization"] = "Bearer not-a-token"
    ended = doctor(account)
    assert ended.returncode == 2
    assert "the Kubernetes credentials" in ended.stderr and "Traceback" not in ended.stderr
    assert ended.stdout == ""


def test_many_missing_rights_come_with_the_manifest_that_grants_them_all_and_no_command_twice(holder, doctor):
    shown = doctor(holder(())).stdout
    assert shown.count("kubectl apply -k manifests/rbac/overlays/pipeline-runner") == 1
    for right in STEP_RIGHTS:
        assert shown.count(f"--verb={right.verb} --resource={right.resource} &&") == 1
    assert "kubectl apply -k" not in doctor(holder(all_but(CREATE_JOBS))).stdout


def test_an_administrator_can_look_as_the_account_of_the_steps(cluster, holder, doctor):
    steps = account_name(holder(all_but(PATCH_JOBS)))
    (check, *_) = amiss(examine(acting_as(cluster, steps), QUESTION))
    assert check.found.startswith(f"missing: {PATCH_JOBS};")
    ended = doctor(holder(STEP_RIGHTS), "--as", steps)
    assert ended.returncode == 2
    assert "the right to impersonate serviceaccounts in the whole cluster" in ended.stderr
