"""Why a training does not run yet, in one line, by its pods and, where there are none, by events."""

from typing import Any

import pytest
from launch.trainjob.statuses import ENDED_WELL, PULLING, Pod, pod, terminated
from servers.kubernetes_api import Answer, refuse, say, serving, stream

from kfp_finetune.cluster.client import Cluster
from kfp_finetune.launch.trainjob.waiting import why_waiting

JOB: dict[str, Any] = {"metadata": {"name": "job", "creationTimestamp": "2026-01-01T00:00:00Z"}}
SUSPENDED = {"type": "Suspended", "status": "True", "reason": "Suspended", "message": "TrainJob is suspended"}


def unscheduled(node: int, message: str = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.") -> Pod:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    status = {"phase": "Pending", "conditions": [condition]}
    return {"metadata": pod(node)["metadata"], "spec": {}, "status": status}


def event(reason: str, message: str, at: str, kind: str = "Warning") -> dict[str, Any]:
    involved = {"kind": "TrainJob", "name": "job"}
    metadata = {"name": f"{reason}-{at}", "namespace": "here"}
    return {
        "metadata": metadata, "involvedObject": involved, "reason": reason, "message": message, "type": kind,
        "lastTimestamp": at,
    }  # fmt: skip


def words(pods: list[Pod], events: Answer | None = None, job: dict[str, Any] = JOB, num_nodes: int = 2) -> str:
    """What is said of a job whose events a server answers so; without an answer nothing may be asked."""
    with serving(lambda request: events or refuse(500)) as (server, api):
        said = why_waiting(Cluster(api, "here"), job, pods, num_nodes)
        assert events is not None or not server.requests
    return said


def listing(*events: dict[str, Any]) -> Answer:
    return say({"metadata": {}, "items": list(events)})


def test_a_job_that_a_queue_holds_back_is_told_as_such() -> None:
    said = words([], job={**JOB, "status": {"conditions": [SUSPENDED]}})
    assert said == "it is suspended (TrainJob is suspended): a queue holds it back"


def test_pods_that_wait_are_counted_by_reason() -> None:
    pods = [pod(0), unscheduled(1), unscheduled(2), {**PULLING, "metadata": pod(3)["metadata"]}]
    assert words(pods, num_nodes=4) == (
        "1 of 4 pods run; 2 wait: Unschedulable (0/3 nodes are available: 3 Insufficient nvidia.com/gpu.); "
        '1 wait: ImagePullBackOff (Back-off pulling image "none")'
    )


@pytest.mark.parametrize("reason", ["ContainerCreating", "PodInitializing"])
def test_a_container_that_is_being_created_is_told_as_such(reason: str) -> None:
    creating = pod(1, {"waiting": {"reason": reason}}, phase="Pending")
    assert words([ENDED_WELL, creating]).endswith("1 wait: its container is being created (image, volumes)")


def test_a_container_that_failed_is_not_told_as_one_that_is_being_created() -> None:
    assert words([pod(0), pod(1, terminated(3))]).endswith("1 wait: its container ended with exit status 3")


def test_without_pods_the_newest_warning_since_the_job_s_creation_says_why() -> None:
    events = listing(
        event("FailedCreate", "of an earlier job", "2025-12-31T23:59:59Z"),
        event("FailedCreate", 'pods "job-node-0-0" is forbidden:\n exceeded quota: none', "2026-01-01T00:00:05Z"),
        event("TrainJobResourcesCreationFailed", "older", "2026-01-01T00:00:01Z"),
        event("Scheduled", "no warning", "2026-01-01T00:00:09Z", "Normal"),
    )
    reason = 'FailedCreate (pods "job-node-0-0" is forbidden: exceeded quota: none)'
    assert words([], events) == f"0 of 2 pods run; {reason}"


@pytest.mark.parametrize(
    "answer", [listing(), refuse(403), refuse(500), stream(b"{", cut=True)], ids=["none", "403", "500", "cut"]
)
def test_without_events_the_rest_is_told(answer: Answer) -> None:
    assert words([], answer) == "0 of 2 pods run; the others are not created yet"
