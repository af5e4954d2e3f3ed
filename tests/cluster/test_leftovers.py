"""A training that begins while the pods of a deleted one of its name still end, on a real cluster."""

import uuid

from kubernetes import client

from kfp_finetune.cluster.trainer import trainjob_fields
from kfp_finetune.launch.trainjob.following import follow_job
from kfp_finetune.launch.trainjob.jobs import find_job
from kfp_finetune.launch.trainjob.lease import hold, now, release
from kfp_finetune.launch.trainjob.names import JOBSET_LABEL
from kfp_finetune.launch.trainjob.settings import JobSettings
from kfp_finetune.launch.trainjob.spec import JobSpec, trainjob


def test_pods_of_a_deleted_job_are_not_taken_for_the_new_one_s(site, steps, image, eventually):
    core, name = client.CoreV1Api(steps.api), f"job-{uuid.uuid4().hex[:8]}"
    fields = trainjob_fields(steps)

    def job(command):
        spec = JobSpec(
            name, "torch-distributed", "ClusterTrainingRuntime", image, ["sh", "-c", command], 1, 1, "", site.claim,
            "/workspace", JobSettings(),
        )  # fmt: skip
        return trainjob(spec, fields, "run-1", now())

    def pods():
        return core.list_namespaced_pod(steps.namespace, label_selector=f"{JOBSET_LABEL}={name}").items

    hold(steps, job("echo old; trap '' TERM; while true; do sleep 1; done"), "run-1")
    eventually(lambda: [pod for pod in pods() if pod.status.phase == "Running"], 60)
    release(steps, "run-1")
    eventually(lambda: find_job(steps, name) is None, 60)
    assert pods()
    lines = []
    lease = hold(steps, job("echo hello"), "run-1")
    assert follow_job(lease, 1, 120, 240, lines.append) is None
    assert lines == ["hello"]
