"""The API calls on TrainJobs, each with patience for an API server that is away for a while."""

import time
from collections.abc import Mapping
from typing import Any

from kubernetes import client

from kfp_finetune.cluster.client import Cluster, api_call, patiently, status_message
from kfp_finetune.cluster.ownership import MANAGED_BY
from kfp_finetune.cluster.trainer import GROUP, VERSION
from kfp_finetune.errors import refuse
from kfp_finetune.launch.trainjob.names import JOBSET_LABEL, PLURAL, RESOURCE

REMOVAL_SECONDS = 180
"""Longest wait for a deleted job and its pods to be gone."""

Job = Mapping[str, Any]


def _api(cluster: Cluster) -> client.CustomObjectsApi:
    return client.CustomObjectsApi(cluster.api)


def _at(cluster: Cluster) -> tuple[str, str, str, str]:
    return GROUP, VERSION, cluster.namespace, PLURAL


@patiently
def find_job(cluster: Cluster, name: str) -> Job | None:
    """The TrainJob of a name, or None.

    Args:
        cluster: Where to look.
        name: The job's.

    Raises:
        UserError: If the cluster refuses it.
    """
    with api_call("get", RESOURCE, cluster.namespace):
        try:
            return _api(cluster).get_namespaced_custom_object(*_at(cluster), name)
        except client.ApiException as error:
            if error.status == 404:
                return None
            raise


@patiently
def list_jobs(cluster: Cluster, selector: Mapping[str, str]) -> list[Job]:
    """The TrainJobs of this library with some labels.

    Args:
        cluster: Where to look.
        selector: Labels that they have beside `MANAGED_BY`.

    Raises:
        UserError: If the cluster refuses it.
    """
    labels = ",".join(f"{name}={value}" for name, value in {**MANAGED_BY, **selector}.items())
    with api_call("list", RESOURCE, cluster.namespace):
        try:
            return _api(cluster).list_namespaced_custom_object(*_at(cluster), label_selector=labels)["items"]
        except client.ApiException as error:
            if error.status == 404:  # Trainer is not installed, and so there are none.
                return []
            raise


@patiently
def create_job(cluster: Cluster, job: Job) -> Job:
    """Makes a TrainJob, strictly checked.

    Args:
        cluster: Where it shall run.
        job: As `spec.trainjob` makes it.

    Returns:
        The job as it is now.

    Raises:
        UserError: If the cluster refuses it.
        kubernetes.client.ApiException: If there is one of that name (409).
    """
    with api_call("create", RESOURCE, cluster.namespace):
        try:
            return _api(cluster).create_namespaced_custom_object(*_at(cluster), job, field_validation="Strict")
        except client.ApiException as error:
            if error.status not in (400, 422):
                raise
            raise refuse(
                "trainjob",
                f"one that Kubeflow Trainer does not accept ({status_message(error)})",
                "settings that fit its version and the runtime",
                "Correct what it names and run again.",
            ) from error


def patch_job(cluster: Cluster, name: str, uid: str, metadata: Mapping[str, Any]) -> None:
    """Changes labels and annotations of a job, once and without patience.

    Args:
        cluster: Where it is.
        name: The job's.
        uid: The job's; another of that name is left alone (409).
        metadata: What to change.

    Raises:
        UserError: If the cluster refuses it or does not answer.
        kubernetes.client.ApiException: If the job is gone (404, 409).
    """
    with api_call("patch", RESOURCE, cluster.namespace):
        _api(cluster).patch_namespaced_custom_object(*_at(cluster), name, {"metadata": {"uid": uid, **metadata}})


@patiently
def delete_job(cluster: Cluster, job: Job) -> bool:
    """Asks for a job's deletion with all that belongs to it, and does not wait.

    Not in the foreground: while a TrainJob waits for what belongs to it to go, Trainer 2.3 makes that anew.

    Args:
        cluster: Where it is.
        job: The job; another of its name is left alone.

    Returns:
        Whether it was there.

    Raises:
        UserError: If the cluster refuses it.
    """
    this_one = client.V1DeleteOptions(
        propagation_policy="Background", preconditions=client.V1Preconditions(uid=job["metadata"]["uid"])
    )
    with api_call("delete", RESOURCE, cluster.namespace):
        try:
            _api(cluster).delete_namespaced_custom_object(*_at(cluster), job["metadata"]["name"], body=this_one)
        except client.ApiException as error:
            if error.status not in (404, 409):
                raise
            return False
    return True


def remove_job(cluster: Cluster, job: Job) -> None:
    """Deletes a job and waits until it and its pods are gone.

    Args:
        cluster: Where it is.
        job: The job; another of its name is left alone.

    Raises:
        UserError: If the cluster refuses it, or if the job is still there after `REMOVAL_SECONDS`.
    """
    delete_job(cluster, job)
    wait_until_gone(cluster, job["metadata"]["name"], job["metadata"]["uid"])


def wait_until_gone(cluster: Cluster, name: str, uid: str) -> None:
    """Waits until neither a job nor pods of one of its name are there.

    Pods of a machine that is lost stay, as Terminating, until an administrator removes it; they are not waited for
    longer than `REMOVAL_SECONDS`.

    Args:
        cluster: Where they are.
        name: The job's.
        uid: The job's; another of that name counts as none.

    Raises:
        UserError: If the cluster refuses it, or if the job is still there after `REMOVAL_SECONDS`.
    """
    end = time.monotonic() + REMOVAL_SECONDS
    pause = 0.2
    while True:
        job = find_job(cluster, name)
        if job is not None and job["metadata"]["uid"] != uid:
            return
        pods = _pods(cluster, name, limit=1) if job is None else []
        if job is None and not pods:
            return
        if time.monotonic() > end:
            pods = _pods(cluster, name)
            if job is None and all(pod.metadata.deletion_timestamp for pod in pods):
                print(f"{len(pods)} pods of {name} stay Terminating, as on a machine that is lost", flush=True)
                return
            raise refuse(
                f"TrainJob {name}",
                f"a deletion that has not ended after {REMOVAL_SECONDS} s",
                "one that ends, with the job's pods",
                f"See what keeps it: kubectl -n {cluster.namespace} get trainjob,jobset,job,pod -l "
                f"{JOBSET_LABEL}={name}",
            )
        time.sleep(pause)
        pause = min(2 * pause, 2.0)


@patiently
def _pods(cluster: Cluster, name: str, **bounds: int) -> list[Any]:
    with api_call("list", "pods", cluster.namespace):
        pods = client.CoreV1Api(cluster.api).list_namespaced_pod(
            cluster.namespace, label_selector=f"{JOBSET_LABEL}={name}", **bounds
        )
    return pods.items


def condition(job: Job, kind: str) -> Mapping[str, str] | None:
    """A condition of a job if it is true, or None.

    Args:
        job: The job.
        kind: "Suspended", "Complete" or "Failed".
    """
    conditions = (job.get("status") or {}).get("conditions") or ()
    return next((one for one in conditions if one["type"] == kind and one["status"] == "True"), None)
