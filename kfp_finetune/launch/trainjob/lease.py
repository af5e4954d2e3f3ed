"""Who holds a TrainJob: it is made or found again, held by runs, kept from being orphaned, and given up."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from kubernetes import client
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random

from kfp_finetune.cluster.client import Cluster, api_call, status_message
from kfp_finetune.cluster.ownership import MANAGED_BY, made_by_us
from kfp_finetune.cluster.trainer import GROUP, VERSION
from kfp_finetune.errors import refuse
from kfp_finetune.launch.trainjob.names import (
    HEARTBEAT,
    JOBSET_LABEL,
    LOG_PREFIX,
    PLURAL,
    RESOURCE,
    RUN_PREFIX,
    SPEC_HASH,
)

ABANDONED_AFTER = timedelta(minutes=15)
"""A job whose waiting steps have said nothing for so long has none any more."""

REMOVAL_SECONDS = 180
"""Longest wait for a deleted job and its pods to be gone."""

Job = Mapping[str, Any]


@dataclass(frozen=True)
class Lease:
    """A TrainJob that a run holds.

    Args:
        cluster: Where it is.
        name: The job's.
        uid: The job's, which no later job of that name has.
        run: Id of the run.
        printed: Up to where this run has printed the log of the first node: the pod's uid and a line's time.
    """

    cluster: Cluster
    name: str
    uid: str
    run: str
    printed: tuple[str, str]


def now() -> str:
    """The time, RFC 3339 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _api(cluster: Cluster) -> client.CustomObjectsApi:
    return client.CustomObjectsApi(cluster.api)


def _at(cluster: Cluster) -> tuple[str, str, str, str]:
    return GROUP, VERSION, cluster.namespace, PLURAL


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


def _is_race(error: BaseException) -> bool:
    return isinstance(error, client.ApiException) and error.status in (404, 409)


@retry(retry=retry_if_exception(_is_race), stop=stop_after_attempt(5), wait=wait_random(0.1, 1), reraise=True)
def hold(cluster: Cluster, job: Job, run: str) -> Lease:
    """Makes a TrainJob, or finds the one that is there for the same work, and holds it for a run.

    A job that asks for something else, such as more memory, is replaced, unless another run that is alive holds it:
    then that job is followed as it is. One that has failed is replaced too.

    Args:
        cluster: Where it shall run.
        job: As `spec.trainjob` makes it.
        run: Id of the run.

    Raises:
        UserError: If a job of that name is not ours, or if the cluster refuses a call.
    """
    name = job["metadata"]["name"]
    found = find_job(cluster, name)
    if found is not None:
        _refuse_foreign(found, cluster)
        replaced = _why_replaced(found, job, run)
        if not replaced:
            return _join(cluster, found, run)
        print(f"TrainJob {name}: replaced, since {replaced}", flush=True)
        remove(cluster, found)
    else:
        # Pods of a job that was deleted before would be taken for the new one's.
        _wait_until_gone(cluster, name, uid="")
    with api_call("create", RESOURCE, cluster.namespace):
        try:
            made = _api(cluster).create_namespaced_custom_object(*_at(cluster), job, field_validation="Strict")
        except client.ApiException as error:
            if error.status not in (400, 422):
                raise
            raise refuse(
                "trainjob",
                f"one that Kubeflow Trainer does not accept ({status_message(error)})",
                "settings that fit its version and the runtime",
                "Correct what it names and run again.",
            ) from error
    print(f"TrainJob {name}: created in namespace {cluster.namespace}", flush=True)
    return Lease(cluster, name, made["metadata"]["uid"], run, ("", ""))


def _refuse_foreign(job: Job, cluster: Cluster) -> None:
    metadata = job["metadata"]
    if not made_by_us(metadata.get("labels")):
        raise refuse(
            f"TrainJob {metadata['name']} in namespace {cluster.namespace}",
            "one that something else made",
            f"none of that name, or one of this library (label {'='.join(*MANAGED_BY.items())})",
            f"Find out what it is; if nobody needs it: kubectl -n {cluster.namespace} delete trainjob "
            f"{metadata['name']}",
        )


def _why_replaced(found: Job, wanted: Job, run: str) -> str:
    """Why a job of ours must go before the wanted one can be made; empty if it can be joined."""
    metadata = found["metadata"]
    if metadata.get("deletionTimestamp"):
        return "it is being deleted"
    if condition(found, "Failed"):
        return "it has failed"
    if metadata["annotations"].get(SPEC_HASH) == wanted["metadata"]["annotations"][SPEC_HASH]:
        return ""
    if holders(found) - {run} and not is_abandoned(found):
        others = ", ".join(sorted(holders(found) - {run}))
        print(f"TrainJob {metadata['name']}: run {others} trains the same with other resources; it is followed")
        return ""
    return "the same training is asked for with other resources"


def condition(job: Job, kind: str) -> Mapping[str, str] | None:
    """A condition of a job if it is true, or None.

    Args:
        job: The job.
        kind: "Suspended", "Complete" or "Failed".
    """
    conditions = (job.get("status") or {}).get("conditions") or ()
    return next((one for one in conditions if one["type"] == kind and one["status"] == "True"), None)


def holders(job: Job) -> set[str]:
    """Ids of the runs that hold a job."""
    labels = job["metadata"].get("labels") or {}
    return {label.removeprefix(RUN_PREFIX) for label in labels if label.startswith(RUN_PREFIX)}


def is_abandoned(job: Job) -> bool:
    """Whether no step waits for a job any more."""
    metadata = job["metadata"]
    beat = (metadata.get("annotations") or {}).get(HEARTBEAT, metadata["creationTimestamp"])
    return datetime.now(UTC) - datetime.fromisoformat(beat) > ABANDONED_AFTER


def _join(cluster: Cluster, job: Job, run: str) -> Lease:
    name, metadata = job["metadata"]["name"], job["metadata"]
    _patch(
        cluster, name, metadata["uid"], {"labels": {f"{RUN_PREFIX}{run}": "holds"}, "annotations": {HEARTBEAT: now()}}
    )
    print(f"TrainJob {name}: found; it is followed", flush=True)
    pod, _, time_of_line = (metadata["annotations"].get(f"{LOG_PREFIX}{run}") or "").partition(" ")
    return Lease(cluster, name, metadata["uid"], run, (pod, time_of_line))


def beat(lease: Lease, pod: str, time_of_line: str) -> None:
    """Says that the waiting step is there, and up to where it prints the log next.

    Args:
        lease: The job.
        pod: Uid of the first node's pod; empty while there is none.
        time_of_line: Of the last line that is printed.

    Raises:
        kubernetes.client.ApiException: If the job is gone (404) or the API server fails.
        UserError: If the cluster refuses it or does not answer.
    """
    annotations = {HEARTBEAT: now()}
    if pod:
        annotations[f"{LOG_PREFIX}{lease.run}"] = f"{pod} {time_of_line}"
    _patch(lease.cluster, lease.name, lease.uid, {"annotations": annotations})


def _patch(cluster: Cluster, name: str, uid: str, metadata: Mapping[str, Any]) -> None:
    with api_call("patch", RESOURCE, cluster.namespace):
        _api(cluster).patch_namespaced_custom_object(*_at(cluster), name, {"metadata": {"uid": uid, **metadata}})


def remove(cluster: Cluster, job: Job) -> None:
    """Deletes a job and waits until it and its pods are gone.

    Args:
        cluster: Where it is.
        job: The job; another of its name is left alone.

    Raises:
        UserError: If the cluster refuses it, or if something is still there after `REMOVAL_SECONDS`.
    """
    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    delete_job(cluster, name, uid)
    _wait_until_gone(cluster, name, uid)


def _wait_until_gone(cluster: Cluster, name: str, uid: str) -> None:
    """Waits until neither a job nor pods of one of that name are there, or another job has taken the name."""
    end = time.monotonic() + REMOVAL_SECONDS
    pause = 0.2
    while _is_there(cluster, name, uid):
        if time.monotonic() > end:
            raise refuse(
                f"TrainJob {name}",
                f"one that is still being deleted after {REMOVAL_SECONDS} s",
                "one that is gone, with its pods",
                f"See what keeps it: kubectl -n {cluster.namespace} get trainjob,jobset,job,pod -l "
                f"{JOBSET_LABEL}={name}",
            )
        time.sleep(pause)
        pause = min(2 * pause, 2.0)


def delete_job(cluster: Cluster, name: str, uid: str) -> bool:
    """Asks for a job's deletion with all that belongs to it, and does not wait.

    Not in the foreground: while a TrainJob waits for what belongs to it to go, Trainer 2.3 makes that anew.

    Args:
        cluster: Where it is.
        name: The job's.
        uid: The job's; another of that name is left alone.

    Returns:
        Whether it was there.

    Raises:
        UserError: If the cluster refuses it.
    """
    this_one = client.V1DeleteOptions(propagation_policy="Background", preconditions=client.V1Preconditions(uid=uid))
    with api_call("delete", RESOURCE, cluster.namespace):
        try:
            _api(cluster).delete_namespaced_custom_object(*_at(cluster), name, body=this_one)
        except client.ApiException as error:
            if error.status not in (404, 409):
                raise
            return False
    return True


def _is_there(cluster: Cluster, name: str, uid: str) -> bool:
    job = find_job(cluster, name)
    if job is not None:
        return job["metadata"]["uid"] == uid
    with api_call("list", "pods", cluster.namespace):
        pods = client.CoreV1Api(cluster.api).list_namespaced_pod(
            cluster.namespace, label_selector=f"{JOBSET_LABEL}={name}", limit=1
        )
    return bool(pods.items)


def release(cluster: Cluster, run: str) -> list[str]:
    """Gives up all jobs of a run; those that no other run holds are deleted.

    Args:
        cluster: Where they are.
        run: Id of the run.

    Returns:
        What became of each, in a line.

    Raises:
        UserError: If the cluster refuses a call.
    """
    lines = []
    for job in list_jobs(cluster, {f"{RUN_PREFIX}{run}": "holds"}):
        name, uid = job["metadata"]["name"], job["metadata"]["uid"]
        others = holders(job) - {run}
        if others and not is_abandoned(job):
            _patch(cluster, name, uid, {"labels": {f"{RUN_PREFIX}{run}": None}})
            lines.append(f"TrainJob {name}: left to run {', '.join(sorted(others))}, which holds it too")
        else:
            delete_job(cluster, name, uid)
            lines.append(f"TrainJob {name}: deleted; its checkpoints are kept")
    return lines


def sweep(cluster: Cluster) -> list[str]:
    """Deletes the jobs of this library that no step waits for any more.

    Args:
        cluster: Where they are.

    Returns:
        What was deleted, a line each.

    Raises:
        UserError: If the cluster refuses a call.
    """
    lines = []
    for job in list_jobs(cluster, {}):
        if is_abandoned(job) and delete_job(cluster, job["metadata"]["name"], job["metadata"]["uid"]):
            lines.append(f"TrainJob {job['metadata']['name']}: deleted, since no step has waited for it lately")
    return lines
