"""Who holds a TrainJob: it is made or found again, held by runs, kept from being orphaned, and given up."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from kubernetes import client
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random

from kfp_finetune.cluster.client import Cluster, patiently
from kfp_finetune.cluster.ownership import MANAGED_BY, made_by_us
from kfp_finetune.errors import refuse
from kfp_finetune.launch.trainjob.jobs import (
    Job,
    condition,
    create_job,
    delete_job,
    find_job,
    list_jobs,
    patch_job,
    remove_job,
    wait_until_gone,
)
from kfp_finetune.launch.trainjob.names import HEARTBEAT_PREFIX, LOG_PREFIX, RUN_PREFIX, SPEC_HASH, VOLUME

ABANDONED_AFTER = timedelta(minutes=15)
"""A run whose step has said nothing for so long does not wait any more."""

SECOND_LOOK_SECONDS = 45.0
"""Before an abandoned job is swept: after an outage of the API server, steps that are alive say so within this time."""


@dataclass(frozen=True)
class Lease:
    """A TrainJob that a run holds.

    Args:
        cluster: Where it is.
        name: The job's.
        uid: The job's, which no later job of that name has.
        created: When it was made, RFC 3339.
        run: Id of the run.
        printed: Up to where this run has printed the log of the first node: the pod's uid and a line's time.
    """

    cluster: Cluster
    name: str
    uid: str
    created: str
    run: str
    printed: tuple[str, str]


def now() -> str:
    """The time, RFC 3339 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def holders(job: Job) -> set[str]:
    """Ids of the runs that hold a job."""
    labels = job["metadata"].get("labels") or {}
    return {label.removeprefix(RUN_PREFIX) for label in labels if label.startswith(RUN_PREFIX)}


def alive_holders(job: Job) -> set[str]:
    """Ids of the runs that hold a job and have a step that waits for it."""
    metadata = job["metadata"]
    annotations = metadata.get("annotations") or {}
    oldest = datetime.now(UTC) - ABANDONED_AFTER
    beats = {run: annotations.get(f"{HEARTBEAT_PREFIX}{run}", metadata["creationTimestamp"]) for run in holders(job)}
    return {run for run, beat in beats.items() if datetime.fromisoformat(beat) > oldest}


def is_abandoned(job: Job) -> bool:
    """Whether no step waits for a job any more."""
    return not alive_holders(job)


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
        UserError: If a job of that name is not ours or trains on another volume, or if the cluster refuses a call.
    """
    name = job["metadata"]["name"]
    found = find_job(cluster, name)
    if found is not None:
        _refuse_foreign(found, cluster)
        replaced = _why_replaced(found, job, run)
        if not replaced:
            return _join(cluster, found, run)
        print(f"TrainJob {name}: replaced, since {replaced}", flush=True)
        remove_job(cluster, found)
    else:
        # Pods of a job that was deleted before would be taken for the new one's.
        wait_until_gone(cluster, name, uid="")
    made = create_job(cluster, job)
    print(f"TrainJob {name}: created in namespace {cluster.namespace}", flush=True)
    return Lease(cluster, name, made["metadata"]["uid"], made["metadata"]["creationTimestamp"], run, ("", ""))


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
    here, there = found["metadata"], wanted["metadata"]
    if here.get("deletionTimestamp"):
        return "it is being deleted"
    if condition(found, "Failed"):
        return "it has failed"
    if here["annotations"].get(SPEC_HASH) == there["annotations"][SPEC_HASH]:
        return ""
    others = ", ".join(sorted(alive_holders(found) - {run}))
    if not others:
        return "the same training is asked for with other resources"
    volume, wanted_volume = (metadata["annotations"].get(VOLUME) for metadata in (here, there))
    if volume != wanted_volume:
        raise refuse(
            "volume",
            f"{wanted_volume}, while run {others} trains the same on volume {volume}",
            f"{volume}, or another training",
            "Wait for that run and start again, or take its volume.",
        )
    print(
        f"TrainJob {here['name']}: run {others} trains the same with other resources or another image; this run waits "
        "for that job, and what it asked for itself is not used",
        flush=True,
    )
    return ""


def _join(cluster: Cluster, job: Job, run: str) -> Lease:
    name, metadata = job["metadata"]["name"], job["metadata"]
    annotations = {f"{HEARTBEAT_PREFIX}{run}": now()}
    change = {"labels": {f"{RUN_PREFIX}{run}": "holds"}, "annotations": annotations}
    patiently(patch_job)(cluster, name, metadata["uid"], change)
    print(f"TrainJob {name}: found; it is followed", flush=True)
    pod, _, time_of_line = (metadata["annotations"].get(f"{LOG_PREFIX}{run}") or "").partition(" ")
    return Lease(cluster, name, metadata["uid"], metadata["creationTimestamp"], run, (pod, time_of_line))


def beat(lease: Lease, pod: str, time_of_line: str) -> None:
    """Says that the waiting step is there, and up to where it prints the log next.

    Args:
        lease: The job.
        pod: Uid of the first node's pod; empty while there is none.
        time_of_line: Of the last line that is printed.

    Raises:
        kubernetes.client.ApiException: If the job is gone (404, 409).
        UserError: If the cluster refuses it or does not answer.
    """
    annotations = {f"{HEARTBEAT_PREFIX}{lease.run}": now()}
    if pod:
        annotations[f"{LOG_PREFIX}{lease.run}"] = f"{pod} {time_of_line}"
    patch_job(lease.cluster, lease.name, lease.uid, {"annotations": annotations})


def end_attempt(lease: Lease, failed: bool) -> None:
    """Ends what a run has of a job that did not end well.

    Args:
        lease: The job.
        failed: Whether the job is broken; else this run only does not wait any longer, and other runs may.

    Raises:
        UserError: If the cluster refuses it.
    """
    job = find_job(lease.cluster, lease.name)
    if job is None or job["metadata"]["uid"] != lease.uid:
        return
    if failed or not alive_holders(job) - {lease.run}:
        remove_job(lease.cluster, job)
    else:
        print(_give_up(lease.cluster, job, lease.run), flush=True)


def _give_up(cluster: Cluster, job: Job, run: str) -> str:
    """Takes a run from a job's holders, and deletes the job if no other waits for it; says what became of it."""
    name = job["metadata"]["name"]
    others = ", ".join(sorted(alive_holders(job) - {run}))
    if not others:
        delete_job(cluster, job)
        return f"TrainJob {name}: deleted; its checkpoints are kept"
    try:
        patiently(patch_job)(cluster, name, job["metadata"]["uid"], {"labels": {f"{RUN_PREFIX}{run}": None}})
    except client.ApiException as error:
        if error.status not in (404, 409):
            raise
    return f"TrainJob {name}: left to run {others}, which holds it too"


def release(cluster: Cluster, run: str) -> list[str]:
    """Gives up all jobs of a run; those that no other run waits for are deleted.

    Args:
        cluster: Where they are.
        run: Id of the run.

    Returns:
        What became of each, in a line.

    Raises:
        UserError: If the cluster refuses a call.
    """
    return [_give_up(cluster, job, run) for job in list_jobs(cluster, {f"{RUN_PREFIX}{run}": "holds"})]


def sweep(cluster: Cluster, spare: str = "") -> list[str]:
    """Deletes the jobs of this library that no step waits for any more.

    Args:
        cluster: Where they are.
        spare: Name of a job that is left alone.

    Returns:
        What was deleted, a line each.

    Raises:
        UserError: If the cluster refuses a call.
    """
    suspects = {job["metadata"]["uid"] for job in _abandoned(cluster, spare)}
    if not suspects:
        return []
    time.sleep(SECOND_LOOK_SECONDS)
    doomed = [job for job in _abandoned(cluster, spare) if job["metadata"]["uid"] in suspects]
    return [
        f"TrainJob {job['metadata']['name']}: deleted, since no step has waited for it lately"
        for job in doomed
        if delete_job(cluster, job)
    ]


def _abandoned(cluster: Cluster, spare: str) -> list[Job]:
    return [job for job in list_jobs(cluster, {}) if is_abandoned(job) and job["metadata"]["name"] != spare]
