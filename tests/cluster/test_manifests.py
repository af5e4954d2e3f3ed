"""The manifests on a real cluster."""

import os
import shutil
import uuid

import pytest
import yaml
from accounts import MANIFESTS, applied, connect_as
from kubernetes import client

from kfp_finetune.cluster.client import Cluster
from kfp_finetune.cluster.rights import STEP_RIGHTS, missing_rights
from kfp_finetune.cluster.trainer import CLUSTER_RUNTIME, GROUP, VERSION, find_runtime, trainjob_fields
from kfp_finetune.launch.trainjob.spec import JobSpec, trainjob

SHARED_MEMORY = "/dev/shm"


@pytest.fixture
def objects(cluster):
    return client.CustomObjectsApi(cluster.api)


@pytest.fixture
def runtime(objects):
    """The runtime of the manifests under a name of its own, as an API server that prunes nothing takes it."""
    body = yaml.safe_load((MANIFESTS / "runtime" / "runtime.yaml").read_text())
    body["metadata"]["name"] = f"kfp-finetune-test-{uuid.uuid4().hex[:8]}"
    plural = "clustertrainingruntimes"
    made = objects.create_cluster_custom_object(GROUP, VERSION, plural, body, field_validation="Strict")
    yield made
    objects.delete_cluster_custom_object(GROUP, VERSION, plural, made["metadata"]["name"])


def job_of(cluster, runtime):
    spec = JobSpec(
        name=f"job-{uuid.uuid4().hex[:8]}",
        runtime=runtime["metadata"]["name"],
        runtime_kind=CLUSTER_RUNTIME,
        image="localhost/absent:1",
        command=("true",),
        num_nodes=2,
        num_procs_per_node=1,
        accelerator="",
        volume="absent",
        mount_path="/workspace",
    )
    return trainjob(spec, trainjob_fields(cluster), "run", "2026-01-02T03:04:05Z")


def test_the_runtime_fits_a_training(cluster, runtime):
    assert find_runtime(cluster, runtime["metadata"]["name"]) == CLUSTER_RUNTIME


def test_a_training_that_names_the_runtime_is_admitted(cluster, objects, runtime):
    objects.create_namespaced_custom_object(
        GROUP,
        VERSION,
        cluster.namespace,
        "trainjobs",
        job_of(cluster, runtime),
        dry_run="All",
        field_validation="Strict",
    )


@pytest.fixture
def jobset(cluster, eventually, objects, runtime):
    """What Kubeflow Trainer makes of a training on the runtime."""
    job = job_of(cluster, runtime)
    name = job["metadata"]["name"]
    objects.create_namespaced_custom_object(GROUP, VERSION, cluster.namespace, "trainjobs", job)

    def find():
        found = objects.list_namespaced_custom_object(
            "jobset.x-k8s.io", "v1alpha2", cluster.namespace, "jobsets", field_selector=f"metadata.name={name}"
        )
        return next(iter(found["items"]), None)

    yield eventually(find)
    objects.delete_namespaced_custom_object(GROUP, VERSION, cluster.namespace, "trainjobs", name)


def test_kubernetes_makes_no_attempts_of_its_own(jobset):
    (job,) = jobset["spec"]["replicatedJobs"]
    assert jobset["spec"]["failurePolicy"].get("maxRestarts", 0) == 0, "the API leaves a zero out"
    assert job["template"]["spec"]["backoffLimit"] == 0


def test_the_pods_share_memory_once_and_carry_no_token(jobset):
    (job,) = jobset["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    (mount,) = [mount for mount in container["volumeMounts"] if mount["mountPath"] == SHARED_MEMORY]
    (volume,) = [volume for volume in pod["spec"]["volumes"] if volume["name"] == mount["name"]]
    assert volume["emptyDir"]["medium"] == "Memory"
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"


@pytest.fixture
def restricted_namespace(cluster):
    """A namespace that refuses pods which do not meet the restricted Pod Security Standard."""
    core = client.CoreV1Api(cluster.api)
    name = f"kfp-finetune-test-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=name, labels=labels)))
    yield name
    core.delete_namespace(name)


def test_a_restricted_namespace_admits_the_pods(cluster, eventually, restricted_namespace, runtime):
    template = runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
    pod = {**template, "metadata": {**template["metadata"], "name": "training"}}
    core = client.CoreV1Api(cluster.api)
    eventually(lambda: core.list_namespaced_service_account(restricted_namespace).items)
    core.create_namespaced_pod(restricted_namespace, pod, dry_run="All")
    pod["spec"]["securityContext"] = {}
    pod["spec"]["containers"][0]["securityContext"] = {}
    with pytest.raises(client.ApiException, match="restricted"):
        core.create_namespaced_pod(restricted_namespace, pod, dry_run="All")


@pytest.fixture
def kubectl():
    if not shutil.which("kubectl"):
        reason = "kubectl, which builds the overlays, is not on PATH"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


@pytest.fixture
def elsewhere(cluster):
    """A namespace in which no other test has bound the roles."""
    core = client.CoreV1Api(cluster.api)
    name = f"kfp-finetune-test-{uuid.uuid4().hex[:8]}"
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=name)))
    yield Cluster(cluster.api, name)
    core.delete_namespace(name)


@pytest.mark.usefixtures("kubectl")
def test_the_overlay_for_pipelines_gives_their_account_all_rights(elsewhere, eventually, tmp_path):
    account = client.V1ServiceAccount(metadata=client.V1ObjectMeta(name="pipeline-runner"))
    client.CoreV1Api(elsewhere.api).create_namespaced_service_account(elsewhere.namespace, account)
    assert missing_rights(connect_as(elsewhere, "pipeline-runner")) == STEP_RIGHTS
    with applied("pipeline-runner", elsewhere.namespace, tmp_path):
        eventually(lambda: not missing_rights(connect_as(elsewhere, "pipeline-runner")))


@pytest.mark.usefixtures("kubectl")
def test_the_overlay_with_an_account_of_its_own_gives_it_all_rights(elsewhere, eventually, tmp_path):
    with applied("own-account", elsewhere.namespace, tmp_path):
        eventually(lambda: not missing_rights(connect_as(elsewhere, f"kfp-finetune-{elsewhere.namespace}")))
