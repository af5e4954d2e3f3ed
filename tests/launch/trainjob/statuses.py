"""Pods as real clusters write them, as far as the diagnosis reads them."""

from typing import Any

Pod = dict[str, Any]


def terminated(code: int, reason: str = "", at: str = "2026-01-01T00:00:10Z", message: str = "") -> dict[str, Any]:
    """The state of a container that has ended."""
    words = {name: value for name, value in (("reason", reason), ("message", message)) if value}
    default = {} if reason else {"reason": "Completed" if code == 0 else "Error"}
    return {"terminated": {"exitCode": code, "startedAt": "2026-01-01T00:00:00Z", "finishedAt": at, **default, **words}}


def pod(
    node: int = 0,
    state: dict[str, Any] | None = None,
    *,
    phase: str = "Running",
    restarts: int = 0,
    last: dict[str, Any] | None = None,
    deleted: str = "",
    grace: int = 0,
    **status: Any,
) -> Pod:
    """A pod of a training; by default one that runs."""
    name = f"job-node-0-{node}-abcde"
    container = {
        "name": "node",
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}} if state is None else state,
        "restartCount": restarts,
        "lastState": last or {},
    }
    metadata: dict[str, Any] = {
        "name": name,
        "uid": f"uid-of-{name}",
        "labels": {"batch.kubernetes.io/job-completion-index": str(node), "jobset.sigs.k8s.io/jobset-name": "job"},
    }
    if deleted:
        metadata |= {"deletionTimestamp": deleted, "deletionGracePeriodSeconds": grace}
    return {
        "metadata": metadata,
        "spec": {"nodeName": f"machine-{node}"},
        "status": {"phase": phase, "containerStatuses": [container], **status},
    }


def disruption(reason: str, message: str) -> list[dict[str, str]]:
    """The conditions of a pod that the cluster takes away."""
    return [
        {"type": "Ready", "status": "False"},
        {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message},
    ]


OOM = pod(state=terminated(137, "OOMKilled"), phase="Failed")
EVICTED = pod(
    state=terminated(137),
    phase="Failed",
    reason="Evicted",
    message="The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi, available: 900Mi.",
    conditions=disruption("TerminationByKubelet", "The node was low on resource: ephemeral-storage."),
)
EVICTED_BY_AN_OLDER_KUBELET = {**EVICTED, "status": {**EVICTED["status"], "conditions": []}}
PREEMPTED = pod(
    state={"running": {}},
    deleted="2026-01-01T00:01:00Z",
    conditions=disruption(
        "PreemptionByScheduler", "default-scheduler: preempting to accommodate a higher priority pod"
    ),
)
LOST_NODE = pod(
    state={"running": {}},
    deleted="2026-01-01T00:06:00Z",
    conditions=disruption("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"),
)
DRAINED_GRACEFULLY = pod(
    state=terminated(143),
    phase="Failed",
    conditions=disruption("EvictionByEvictionAPI", "Eviction API: evicting"),
    deleted="2026-01-01T00:01:00Z",
)
SHUT_DOWN = pod(
    state={}, phase="Failed", reason="Terminated", message="Pod was terminated in response to node shutdown."
)
REBOOTED = pod(
    state=terminated(
        137, "ContainerStatusUnknown", message="The container could not be located when the pod was terminated"
    ),
    phase="Failed",
)
NOT_ADMITTED = pod(
    state={},
    phase="Failed",
    reason="UnexpectedAdmissionError",
    message="Allocate failed due to no healthy devices present; cannot allocate unhealthy devices nvidia.com/gpu",
)
OUT_OF_CPU = pod(
    state={}, phase="Failed", reason="OutOfcpu", message="Node didn't have enough resource: cpu, requested: 2000"
)
DELETED = pod(state={"running": {}}, deleted="2026-01-01T00:00:20Z")
CRASHED_AND_DELETED = pod(state=terminated(1), deleted="2026-01-01T00:00:10Z")
CRASHED_AND_GOING = pod(state=terminated(1), deleted="2026-01-01T00:00:40Z", grace=30)
RESTARTED_AND_DELETED = pod(
    state={"running": {}}, restarts=1, last=terminated(1), deleted="2026-01-01T00:00:40Z", grace=30
)
KILLED_WHEN_DELETED = pod(state=terminated(137), deleted="2026-01-01T00:00:09Z", grace=5)
TOLD_TO_STOP_AND_DELETED = pod(state=terminated(143), deleted="2026-01-01T00:00:40Z", grace=30)
TOLD_TO_STOP = pod(state=terminated(143), phase="Failed")
CRASHED = pod(state=terminated(1), phase="Failed")
REFUSED = pod(state=terminated(2), phase="Failed")
KILLED = pod(state=terminated(137), phase="Failed")
CANNOT_START = pod(
    state=terminated(128, "StartError", message='exec: "python": executable file not found in $PATH'), phase="Failed"
)
RESTARTED_AFTER_OOM = pod(state={"running": {}}, restarts=1, last=terminated(137, "OOMKilled"))
ABOUT_TO_RESTART = pod(state={"waiting": {"reason": "CrashLoopBackOff"}}, last=terminated(1))
RESTARTED_AND_FORGOTTEN = pod(state=terminated(2), restarts=1)
FAILED_WITHOUT_A_CONTAINER = pod(state={}, phase="Failed", reason="Strange", message="never seen before")
ENDED_WELL = pod(state=terminated(0), phase="Succeeded")
ENDED_WELL_AND_DELETED = pod(state=terminated(0), phase="Succeeded", deleted="2026-01-01T00:00:20Z")
ENDED_WELL_WHILE_DRAINED = pod(
    state=terminated(0), phase="Succeeded", conditions=disruption("EvictionByEvictionAPI", "Eviction API: evicting")
)
RUNNING = pod()
PULLING = pod(
    state={"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "none"'}}, phase="Pending"
)
UNSCHEDULED = {"metadata": {"name": "job-node-0-0-abcde", "uid": "1"}, "spec": {}, "status": {"phase": "Pending"}}
