"""Why a training has not started yet, in words."""

from collections.abc import Sequence
from typing import Any

import urllib3
from kubernetes import client

from kfp_finetune.cluster.client import Cluster
from kfp_finetune.cluster.pods import why_not_running
from kfp_finetune.cluster.trainer import NODE
from kfp_finetune.launch.trainjob.diagnosis import Pod, is_running, node_of
from kfp_finetune.launch.trainjob.jobs import Job, condition

EVENT_REASONS = frozenset({"FailedCreate", "TrainJobResourcesCreationFailed", "JobSetCreationFailed"})
"""Of the events that tell why pods were not even created: a quota, a webhook, a policy."""


def why_waiting(cluster: Cluster, job: Job | None, pods: Sequence[Pod], num_nodes: int) -> str:
    """One line: how many pods run, and what keeps the first of the others.

    Args:
        cluster: Where the job is.
        job: The TrainJob as it is now.
        pods: Its pods as they are now.
        num_nodes: How many there are to be.
    """
    if job is not None and (suspended := condition(job, "Suspended")):
        return f"it is suspended ({suspended.get('message') or suspended.get('reason')}): a queue holds it back"
    waiting = sorted((pod for pod in pods if not is_running(pod)), key=node_of)
    running = f"{sum(map(is_running, pods))} of {num_nodes} pods run"
    if waiting:
        reasons: dict[str, int] = {}
        for pod in waiting:
            reason = why_not_running(pod, NODE)
            reasons[reason] = reasons.get(reason, 0) + 1
        return f"{running}; " + "; ".join(f"{count} wait: {reason}" for reason, count in reasons.items())
    if len(pods) < num_nodes and job is not None:
        return f"{running}; " + (_from_events(cluster, job) or "the others are not created yet")
    return running


def _from_events(cluster: Cluster, job: Job) -> str:
    """What the newest event says that keeps pods from being created; empty if none does, or none may be read."""
    name = job["metadata"]["name"]
    selectors = [f"involvedObject.name={name}", f"involvedObject.kind=Job,involvedObject.name={name}-node-0"]
    found: list[Any] = []
    for selector in selectors:
        try:
            events = client.CoreV1Api(cluster.api).list_namespaced_event(cluster.namespace, field_selector=selector)
        except (client.ApiException, urllib3.exceptions.HTTPError):
            return ""
        found += [event for event in events.items if event.type == "Warning" or event.reason in EVENT_REASONS]
    since = job["metadata"]["creationTimestamp"].replace("Z", "+00:00")
    fresh = [event for event in found if _time(event) >= since]
    if not fresh:
        return ""
    newest = max(fresh, key=_time)
    return f"{newest.reason} ({' '.join((newest.message or '').split())})"


def _time(event: Any) -> str:
    time = event.last_timestamp or event.event_time or event.metadata.creation_timestamp
    return time.isoformat()
