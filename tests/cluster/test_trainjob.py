"""TrainJobs that end in every way, on a real cluster, with the rights of the steps and no others."""

import json
import subprocess
import threading
import uuid
from dataclasses import replace

import pytest
from accounts import all_but
from cluster.pods import TESTS, make_claim
from kfp import dsl
from kubernetes import client

from kfp_finetune.cluster.client import Cluster
from kfp_finetune.cluster.ownership import MANAGED_BY
from kfp_finetune.cluster.rights import STEP_RIGHTS
from kfp_finetune.cluster.trainer import GROUP, VERSION, trainjob_fields
from kfp_finetune.errors import UserError
from kfp_finetune.launch.process import LaunchError
from kfp_finetune.launch.trainjob.jobs import condition, find_job
from kfp_finetune.launch.trainjob.lease import hold, holders, now, release, sweep
from kfp_finetune.launch.trainjob.names import JOBSET_LABEL
from kfp_finetune.launch.trainjob.run import run_trainjob
from kfp_finetune.launch.trainjob.settings import JobSettings
from kfp_finetune.launch.trainjob.spec import JobSpec, trainjob
from kfp_finetune.training.cluster import check_cluster, read_request

SOON = 0.75
"""Minutes after which a busy cluster, too, has made a pod and said what keeps it."""


@pytest.fixture
def spec(site, image):
    """A job of one pod that says hello."""
    return JobSpec(
        name=f"job-{uuid.uuid4().hex[:8]}",
        runtime="torch-distributed",
        runtime_kind="ClusterTrainingRuntime",
        image=image,
        command=["sh", "-c", "echo hello"],
        num_nodes=1,
        num_procs_per_node=1,
        accelerator="",
        volume=site.claim,
        mount_path="/workspace",
        settings=JobSettings(start_timeout_minutes=3, timeout_hours=0.1),
    )


@pytest.fixture
def run(steps):
    """Run a job as the steps would, for the test's own run; return its lines."""
    run_id = uuid.uuid4().hex

    def go(spec, cluster=steps):
        lines = []
        run_trainjob(cluster, spec, run_id, lines.append)
        return lines

    return go


@pytest.fixture
def fails(run, cluster, eventually):
    """Run a job that fails; return the message, once nothing of it is left."""

    def go(spec, where=None):
        with pytest.raises(LaunchError) as failed:
            run(spec, *([where] if where else []))
        assert find_job(where or cluster, spec.name) is None
        # A controller that is behind may make a pod of a job that is gone, which the cluster then removes.
        assert eventually(lambda: pods_of(where or cluster, spec.name) == [], 60)
        return str(failed.value)

    return go


def pods_of(cluster, name):
    found = client.CoreV1Api(cluster.api).list_namespaced_pod(
        cluster.namespace, label_selector=f"{JOBSET_LABEL}={name}"
    )
    return found.items


def shell(spec, command, **settings):
    return replace(spec, command=["sh", "-c", command], settings=replace(spec.settings, **settings))


def test_a_job_that_ends_at_once_is_seen_to_end_well(run, spec, capsys):
    assert run(spec) == ["hello"]
    assert capsys.readouterr().out.splitlines()[-1] == "hello"


def test_a_job_that_fails_at_once_is_not_tried_again(fails, spec, capsys):
    message = fails(shell(spec, "echo broken; exit 3"))
    assert "it ended with exit status 3" in message and "broken" in message
    assert "attempt" not in capsys.readouterr().out


def test_a_step_s_refusal_is_told_as_one(fails, spec):
    assert "it refused what it was given" in fails(shell(spec, "echo 'error: 1 problem'; exit 2"))


def test_a_gpu_that_is_not_there_is_explained_and_waited_for_no_longer_than_allowed(fails, spec, capsys, monkeypatch):
    monkeypatch.setattr("kfp_finetune.launch.trainjob.following.EXPLAIN_SECONDS", 2)
    message = fails(replace(shell(spec, "true", start_timeout_minutes=SOON), accelerator="nvidia.com/gpu"))
    assert "Insufficient nvidia.com/gpu" in message and "start_timeout_minutes" in message
    assert "waiting: 0 of 1 pods run; 1 wait: Unschedulable" in capsys.readouterr().out


def test_an_image_that_does_not_exist_is_explained(fails, spec):
    message = fails(replace(shell(spec, "true", start_timeout_minutes=SOON), image="localhost/none:1"))
    assert "localhost/none:1" in message and ("ErrImagePull" in message or "ImagePullBackOff" in message)


def test_a_claim_that_never_binds_is_explained(fails, spec, cluster):
    claim = f"unbound-{uuid.uuid4().hex[:8]}"
    body = client.V1PersistentVolumeClaim(
        metadata=client.V1ObjectMeta(name=claim),
        spec=client.V1PersistentVolumeClaimSpec(
            access_modes=["ReadWriteMany"],
            storage_class_name="",
            resources=client.V1VolumeResourceRequirements(requests={"storage": "1Gi"}),
        ),
    )
    client.CoreV1Api(cluster.api).create_namespaced_persistent_volume_claim(cluster.namespace, body)
    message = fails(replace(shell(spec, "true", start_timeout_minutes=SOON), volume=claim))
    assert "unbound immediate PersistentVolumeClaims" in message


def test_a_pod_that_takes_too_much_memory_is_named_as_such(fails, spec):
    message = fails(shell(spec, "python -c 'held = b\"x\" * 10**9'", memory="100Mi"))
    # Some versions of containerd lose the kernel's word; then only the signal is known.
    assert ("OOMKilled" in message or "SIGKILL" in message) and "trainjob.memory" in message


def test_a_job_that_takes_too_long_is_ended(fails, spec):
    assert "trainjob.timeout_hours" in fails(shell(spec, "sleep 600", timeout_hours=12 / 3600))


def test_a_quota_that_is_exceeded_is_explained(fails, spec, cluster, eventually):
    core = client.CoreV1Api(cluster.api)
    crowded = Cluster(cluster.api, f"{cluster.namespace}-crowded")
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=crowded.namespace)))
    try:
        quota = client.V1ResourceQuota(
            metadata=client.V1ObjectMeta(name="none"), spec=client.V1ResourceQuotaSpec(hard={"pods": "0"})
        )
        core.create_namespaced_resource_quota(crowded.namespace, quota)
        eventually(lambda: core.read_namespaced_resource_quota("none", crowded.namespace).status.hard)
        message = fails(shell(spec, "true", start_timeout_minutes=SOON), crowded)
        assert "exceeded quota: none" in message
    finally:
        core.delete_namespace(crowded.namespace)


def test_a_foreign_job_of_the_same_name_is_left_alone(run, spec, cluster):
    foreign = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": {"name": spec.name},
        "spec": {"runtimeRef": {"name": spec.runtime}, "suspend": True},
    }
    api = client.CustomObjectsApi(cluster.api)
    made = api.create_namespaced_custom_object(GROUP, VERSION, cluster.namespace, "trainjobs", foreign)
    with pytest.raises(UserError, match="one that something else made"):
        run(spec)
    found = find_job(cluster, spec.name)
    assert found["metadata"]["uid"] == made["metadata"]["uid"] and "deletionTimestamp" not in found["metadata"]


def test_the_same_work_is_found_again_and_with_other_resources_replaced(run, spec, cluster, capsys):
    run(spec)
    first = find_job(cluster, spec.name)["metadata"]["uid"]
    assert run(spec) == ["hello"]
    assert find_job(cluster, spec.name)["metadata"]["uid"] == first
    assert capsys.readouterr().out.count("hello") == 1
    assert run(shell(spec, "echo hello", memory="500Mi")) == ["hello"]
    job = find_job(cluster, spec.name)
    assert job["metadata"]["uid"] != first and MANAGED_BY.items() <= job["metadata"]["labels"].items()


def test_work_that_another_run_waits_for_is_followed_as_it_is(steps, spec, cluster):
    one, other = uuid.uuid4().hex, uuid.uuid4().hex
    fields = trainjob_fields(steps)
    sleeping = shell(spec, "sleep 600")
    first = hold(steps, trainjob(sleeping, fields, one, now()), one)
    second = hold(steps, trainjob(shell(spec, "sleep 600", memory="500Mi"), fields, other, now()), other)
    assert first.uid == second.uid
    assert release(steps, one) == [f"TrainJob {spec.name}: left to run {other}, which holds it too"]
    assert "deletionTimestamp" not in find_job(cluster, spec.name)["metadata"]
    assert release(steps, other) == [f"TrainJob {spec.name}: deleted; its checkpoints are kept"]


def test_a_job_whose_steps_are_gone_is_swept_and_no_other(steps, spec, cluster, eventually):
    one, other = uuid.uuid4().hex, uuid.uuid4().hex
    fields = trainjob_fields(steps)
    spared = replace(spec, name=f"{spec.name}-spared")
    long_ago = "2026-01-01T00:00:00Z"
    hold(steps, trainjob(shell(spec, "sleep 600"), fields, one, long_ago), one)
    hold(steps, trainjob(spared, fields, other, now()), other)
    assert f"TrainJob {spec.name}: deleted, since no step has waited for it lately" in sweep(steps)
    assert eventually(lambda: find_job(cluster, spec.name) is None, 60)
    assert find_job(cluster, spared.name) is not None


def test_pods_that_hold_gpus_and_cannot_begin_give_them_back(fails, spec, monkeypatch):
    monkeypatch.setattr("kfp_finetune.launch.trainjob.following.BLOCKED_SECONDS", 2)
    message = fails(replace(spec, image="localhost/none:1"))
    assert "training cannot begin" in message and "localhost/none:1" in message


def test_a_run_that_waits_no_longer_leaves_the_job_to_another(steps, run, spec, cluster):
    other = uuid.uuid4().hex
    waiting = replace(shell(spec, "true", start_timeout_minutes=0.1), accelerator="nvidia.com/gpu")
    first = hold(steps, trainjob(waiting, trainjob_fields(steps), other, now()), other)
    with pytest.raises(LaunchError, match="did not start"):
        run(waiting)
    job = find_job(cluster, spec.name)
    assert job["metadata"]["uid"] == first.uid and holders(job) == {other}
    release(steps, other)


def test_work_on_another_volume_does_not_wait_for_this_one(steps, spec, cluster):
    one, other = uuid.uuid4().hex, uuid.uuid4().hex
    fields = trainjob_fields(steps)
    hold(steps, trainjob(shell(spec, "sleep 600"), fields, one, now()), one)
    elsewhere = replace(shell(spec, "sleep 600"), volume="elsewhere")
    with pytest.raises(UserError, match=f"elsewhere, while run {one} trains the same on volume {spec.volume}"):
        hold(steps, trainjob(elsewhere, fields, other, now()), other)
    release(steps, one)


def until_it_runs(cluster, eventually, name):
    return eventually(lambda: [pod for pod in pods_of(cluster, name) if pod.status.phase == "Running"], 60)[0]


def twice(spec):
    """A job that says first and waits, and says again when it is begun a second time."""
    marker = f"/workspace/{spec.name}"
    return shell(spec, f"if [ -e {marker} ]; then echo again; else touch {marker}; echo first; exec sleep 600; fi")


def test_a_queue_that_takes_the_pods_away_for_a_while_costs_no_attempt(run, spec, cluster, eventually, capsys):
    lines = []
    done = threading.Thread(target=lambda: lines.extend(run(twice(spec))), daemon=True)
    done.start()
    until_it_runs(cluster, eventually, spec.name)
    api = client.CustomObjectsApi(cluster.api)
    for suspend in True, False:
        patch = {"spec": {"suspend": suspend}}
        api.patch_namespaced_custom_object(GROUP, VERSION, cluster.namespace, "trainjobs", spec.name, patch)
        state = bool(suspend)
        eventually(lambda state=state: (condition(find_job(cluster, spec.name), "Suspended") is not None) is state, 60)
    done.join(180)
    assert lines[-1] == "again"
    assert "attempt" not in capsys.readouterr().out


def test_a_pod_that_never_goes_is_not_waited_for_for_ever(run, spec, cluster, eventually, monkeypatch, capsys):
    monkeypatch.setattr("kfp_finetune.launch.trainjob.following.SETTLE_SECONDS", 3)
    monkeypatch.setattr("kfp_finetune.launch.trainjob.jobs.REMOVAL_SECONDS", 20)
    core, lines = client.CoreV1Api(cluster.api), []
    done = threading.Thread(target=lambda: lines.extend(run(twice(spec))), daemon=True)
    done.start()
    pod = until_it_runs(cluster, eventually, spec.name).metadata.name
    kept = {"metadata": {"finalizers": ["kfp-finetune.test/lost-node"]}}
    core.patch_namespaced_pod(pod, cluster.namespace, kept)
    core.delete_namespaced_pod(pod, cluster.namespace, grace_period_seconds=0)
    done.join(120)
    core.patch_namespaced_pod(pod, cluster.namespace, {"metadata": {"finalizers": None}})
    assert lines[-1] == "again"
    assert "stay Terminating, as on a machine that is lost" in capsys.readouterr().out


def test_a_lost_pod_leads_to_another_attempt(run, spec, cluster, eventually, monkeypatch, capsys):
    # After ten seconds the cluster itself makes the pod anew.
    monkeypatch.setattr("kfp_finetune.launch.trainjob.following.SETTLE_SECONDS", 3)
    lines = []
    done = threading.Thread(target=lambda: lines.extend(run(twice(spec))), daemon=True)
    done.start()
    pod = until_it_runs(cluster, eventually, spec.name)
    client.CoreV1Api(cluster.api).delete_namespaced_pod(pod.metadata.name, cluster.namespace, grace_period_seconds=0)
    done.join(120)
    assert lines[-1] == "again"
    assert "another can mend it" in capsys.readouterr().out


TASK_CONFIG = json.loads((TESTS / "cluster/taskconfig.json").read_text())
"""As a Kubeflow Pipelines 2.17 server handed it to a step whose task had all of this set on it."""


def test_what_is_set_on_the_task_reaches_the_training_pods_and_no_token_any_object(steps, spec, cluster, eventually):
    core, namespace = client.CoreV1Api(cluster.api), cluster.namespace
    secret = client.V1Secret(metadata=client.V1ObjectMeta(name="t2-secret"), string_data={"k": "a-token-to-hide"})
    core.create_namespaced_secret(namespace, secret)
    core.create_namespaced_config_map(
        namespace, client.V1ConfigMap(metadata=client.V1ObjectMeta(name="t2-cm"), data={"k": "from the map"})
    )
    task = dsl.TaskConfig(**TASK_CONFIG)
    settings = {"env_from_secrets": {"TOKEN": "t2-secret/k"}, "tolerations": [{"key": "b", "operator": "Exists"}]}
    request = read_request(spec.runtime, spec.image, spec.volume, "nvidia.com/gpu", settings, task)
    whole = replace(
        spec, accelerator=request.accelerator, num_procs_per_node=4, settings=request.settings, env=request.env,
        resources=request.resources, volumes=request.volumes, volume_mounts=request.volume_mounts,
    )  # fmt: skip
    hold(steps, trainjob(whole, trainjob_fields(steps), "run", now()), "run")
    (pod,) = eventually(lambda: pods_of(cluster, spec.name), 30)
    (container,) = pod.spec.containers
    assert {"a", "const", "b"} <= {toleration.key for toleration in pod.spec.tolerations}
    assert pod.spec.node_selector == {"kubernetes.io/hostname": "nowhere"}
    limits = {"cpu": "2", "memory": "5Gi", "nvidia.com/gpu": "4"}
    assert container.resources.limits == container.resources.requests == limits
    mounts = {mount.mount_path: mount.name for mount in container.volume_mounts}
    assert {"/data": "t2-pvc", "/sec": "t2-secret", "/workspace": "kfp-finetune-workspace"}.items() <= mounts.items()
    (memory,) = [volume for volume in pod.spec.volumes if volume.name == mounts["/dev/shm"]]
    assert memory.empty_dir.medium == "Memory"
    variables = {variable.name: variable for variable in container.env}
    assert variables["PLAIN"].value == "v" and variables["NODE"].value_from.field_ref.field_path == "spec.nodeName"
    for name in "FROM_SECRET", "TOKEN":
        assert variables[name].value_from.secret_key_ref.name == "t2-secret"
    assert variables["FROM_CM"].value_from.config_map_key_ref.name == "t2-cm"
    assert container.security_context.read_only_root_filesystem
    assert container.security_context.capabilities.drop == ["ALL"]
    assert pod.metadata.annotations["sidecar.istio.io/inject"] == "false"
    job = find_job(cluster, spec.name)
    assert "a-token-to-hide" not in json.dumps(job) + json.dumps(cluster.api.sanitize_for_serialization(pod))
    release(steps, "run")


def test_a_secret_reaches_the_training_and_not_its_log(run, spec, cluster, capsys):
    core = client.CoreV1Api(cluster.api)
    secret = client.V1Secret(metadata=client.V1ObjectMeta(name="tokens"), string_data={"hub": "another-token"})
    core.create_namespaced_secret(cluster.namespace, secret)
    command = 'test "$HF_TOKEN" = another-token && echo there'
    assert run(shell(spec, command, env_from_secrets={"HF_TOKEN": "tokens/hub"})) == ["there"]
    assert "another-token" not in capsys.readouterr().out


def test_a_secret_that_is_missing_is_named(fails, spec):
    message = fails(shell(spec, "true", env_from_secrets={"A": "none/key"}, start_timeout_minutes=SOON))
    assert "CreateContainerConfigError" in message and 'secret "none" not found' in message


def test_the_runtime_of_the_manifests_runs_a_training_pod(run, spec):
    manifest = TESTS.parent / "manifests/runtime"
    subprocess.run(["kubectl", "apply", "--server-side", "-k", manifest], check=True, stdout=subprocess.DEVNULL)
    assert run(shell(replace(spec, runtime="kfp-finetune"), "df /dev/shm | tail -1; id -u"))[-1] == "1000"


PLANNED = [right for right in STEP_RIGHTS if right.resource.startswith(("trainjobs", "pods"))]
CHECKED = [right for right in STEP_RIGHTS if right.verb == "get" and "runtimes" in right.resource]


@pytest.mark.parametrize("right", [*PLANNED, *CHECKED], ids=str)
def test_a_right_that_is_missing_is_named_before_any_pod_is_asked_for(right, holder, site, monkeypatch):
    if right.needed_for.startswith(("make a volume", "remove the pod")):
        pytest.skip("tests/cluster/test_volumes.py takes this right away from the step that uses it")
    monkeypatch.setattr("kfp_finetune.training.cluster.connect", lambda: holder(all_but(right)))
    problems = check_cluster("torch-distributed", site.claim, 2, {})
    where = f"in namespace {site.cluster.namespace}" if right.namespaced else "in the whole cluster"
    assert [problem.what for problem in problems] == [f"the right to {right} {where}"]
    assert "kubectl" in problems[0].mend


def test_all_that_keeps_a_training_from_the_cluster_is_said_at_once(steps, cluster, monkeypatch):
    monkeypatch.setattr("kfp_finetune.training.cluster.connect", lambda: steps)
    once = make_claim(cluster, "ReadWriteOnce")
    settings = {"memory": "lots", "queu": "a", "env": {"PET_NNODES": "3"}, "max_attempts": 0}
    problems = check_cluster("torch-distribute", once, 2, settings)
    names = {"trainjob.memory", "trainjob.queu", "trainjob.env", "trainjob.max_attempts", "runtime", "num_nodes"}
    assert {problem.what for problem in problems} == names
    assert check_cluster("torch-distributed", once, 1, {}) == []
    assert [problem.what for problem in check_cluster("torch-distributed", "none", 1, {})] == ["volume"]
    secrets = {"env_from_secrets": {"TOKEN": "absent/key"}}
    assert check_cluster("torch-distributed", once, 1, secrets) == []  # the steps' account may not know
    monkeypatch.setattr("kfp_finetune.training.cluster.connect", lambda: cluster)
    (absent,) = check_cluster("torch-distributed", once, 1, secrets)
    assert "'absent'" in absent.given and "create secret generic absent" in absent.mend
    (unfit,) = check_cluster("jax-distributed", once, 1, {})
    assert unfit.what == "runtime"
