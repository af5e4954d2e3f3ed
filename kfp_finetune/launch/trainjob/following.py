"""Follows one attempt of a training to its end: one loop over what changes in the cluster."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from queue import Empty, Queue
from typing import Any

import urllib3
from kubernetes import client

from kfp_finetune.cluster.client import Cluster, api_call
from kfp_finetune.cluster.trainer import GROUP, NODE, VERSION
from kfp_finetune.cluster.watching import Broken, Changed, Listed, follow
from kfp_finetune.launch.trainjob.diagnosis import (
    Ended,
    Pod,
    as_it_ended,
    container,
    diagnosis,
    ended,
    first_cause,
    is_running,
    last_words,
    node_of,
    with_log,
)
from kfp_finetune.launch.trainjob.jobs import Job, condition
from kfp_finetune.launch.trainjob.lease import Lease, now
from kfp_finetune.launch.trainjob.names import JOBSET_LABEL, PLURAL, RESOURCE
from kfp_finetune.launch.trainjob.output import Output, Printed, Silent
from kfp_finetune.launch.trainjob.waiting import why_waiting

BEAT_SECONDS = 5.0
"""Between two signs of life, at most while lines wait to be printed."""

IDLE_BEAT_SECONDS = 30.0
"""The same while none do."""

EXPLAIN_SECONDS = 60.0
"""Between two explanations of why pods do not run yet."""

SETTLE_SECONDS = 10.0
"""From the first pod that ended badly to the diagnosis, so that the others' ends are known too."""

BLOCKED = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError"}
)
"""Reasons of a pod that has its node, and so its GPUs, and cannot begin."""

BLOCKED_SECONDS = 600.0
"""Longest time for which pods keep GPUs that way; a registry that was busy has answered before."""

LAST_LOG_SECONDS = 60.0
"""Longest wait for the rest of the log of a job that has ended."""

LAST_LINES = 25
PODS_SHOWN = 16
"""Of the pods that ended badly, those whose last lines are shown."""


@dataclass(frozen=True)
class Failure:
    """An attempt that did not end well.

    Args:
        message: In words, with what each node last said.
        retryable: Whether another attempt can mend it.
        broken: Whether the job is; else it was only waited for long enough.
    """

    message: str
    retryable: bool
    broken: bool = True


@dataclass(frozen=True)
class View:
    """What is known of a job at a moment.

    Args:
        job: The TrainJob; None before it was first read.
        deleted: Whether it is gone or going.
        pods: By name; those that are gone as they last were.
        pods_known: Whether they have been listed.
        failed_at: Monotonic time at which the first pod was seen to have ended badly; 0 if none has.
        taken_at: When a queue last took the pods away, RFC 3339: older ones may go for a while yet, and do not count.
        taken: Names of the pods that were there then: times are whole seconds, so that a pod's own may be the same.
    """

    job: Job | None = None
    deleted: bool = False
    pods: Mapping[str, Pod] = field(default_factory=dict)
    pods_known: bool = False
    failed_at: float = 0.0
    taken_at: str = ""
    taken: frozenset[str] = frozenset()

    @property
    def ends(self) -> list[Ended]:
        """How the pods that ended badly did."""
        return [end for end in map(ended, self.pods.values()) if end is not None]


def updated(view: View, event: Listed | Changed, uid: str, since: str = "") -> View:
    """The view after an event.

    Args:
        view: Before it.
        event: What was told.
        uid: Of the job that is followed; another job of its name does not count.
        since: When that job was made, RFC 3339; older pods are an earlier job's, on a machine that is lost.
    """
    if event.kind == "pod":
        known = event.objects if isinstance(event, Listed) else {event.name: event.object}
        known = {name: pod for name, pod in known.items() if name not in view.taken}
        now = _made_since(max(since, view.taken_at), known)
        if isinstance(event, Changed) and not now:
            return view
        missing = [name for name in view.pods if name not in now] if isinstance(event, Listed) else []
        gone = {name: _deleted(view.pods[name]) for name in missing}
        if isinstance(event, Changed) and event.gone:
            now = {event.name: _deleted(event.object)}
        pods = {**view.pods, **gone, **{name: as_it_ended(view.pods.get(name, pod), pod) for name, pod in now.items()}}
        failed_at = (view.failed_at or time.monotonic()) if any(map(ended, pods.values())) else 0.0
        return replace(view, pods=pods, pods_known=True, failed_at=failed_at)
    if isinstance(event, Listed):
        job = next((job for job in event.objects.values() if job["metadata"]["uid"] == uid), None)
        return _with_job(view, job) if job else replace(view, deleted=True)
    if event.object["metadata"]["uid"] != uid:
        return view
    going = event.gone or "deletionTimestamp" in event.object["metadata"]
    return replace(_with_job(view, event.object), deleted=view.deleted or going)


def _with_job(view: View, job: Job) -> View:
    """The view with the job as it is now; a queue that takes its pods away means to give them back later."""
    view = replace(view, job=job)
    suspended = condition(job, "Suspended")
    if suspended is None:
        return view
    taken_at = suspended.get("lastTransitionTime", view.taken_at)
    if taken_at == view.taken_at:
        return replace(view, failed_at=0.0)
    left = {name: pod for name, pod in view.pods.items() if _made_at(pod) > taken_at}
    taken = view.taken.union(view.pods).difference(left)
    return replace(view, pods=left, failed_at=0.0, taken_at=taken_at, taken=taken)


def _made_since(time: str, pods: Mapping[str, Pod]) -> Mapping[str, Pod]:
    return {name: pod for name, pod in pods.items() if _made_at(pod) >= time}


def _made_at(pod: Pod) -> str:
    return str(pod["metadata"].get("creationTimestamp", ""))


def _deleted(pod: Pod) -> Pod:
    """A pod that is gone: one that had not ended was deleted."""
    return pod if ended(pod) else {**pod, "metadata": {"deletionTimestamp": now(), **pod["metadata"]}}


@contextmanager
def _changes(lease: Lease) -> "Iterator[tuple[Queue[Any], threading.Event]]":
    """Watches the job and its pods while the body runs: two connections, however many nodes there are."""
    events: Queue[Any] = Queue()
    stop = threading.Event()
    api, namespace = lease.cluster.api, lease.cluster.namespace
    jobs = partial(
        client.CustomObjectsApi(api).list_namespaced_custom_object,
        GROUP, VERSION, namespace, PLURAL, field_selector=f"metadata.name={lease.name}",
    )  # fmt: skip
    pods = partial(client.CoreV1Api(api).list_namespaced_pod, namespace, label_selector=f"{JOBSET_LABEL}={lease.name}")
    for kind, fetch in ("job", jobs), ("pod", pods):
        threading.Thread(target=follow, args=(kind, fetch, events, stop), daemon=True).start()
    try:
        yield events, stop
    finally:
        stop.set()


def follow_job(
    lease: Lease,
    num_nodes: int,
    start_timeout_seconds: float,
    timeout_seconds: float,
    on_line: Callable[[str], None],
) -> Failure | None:
    """Follows a job to its end, prints its log, says why it waits.

    Args:
        lease: The job.
        num_nodes: How many pods it has.
        start_timeout_seconds: Longest wait until all of them run, time in a queue left out.
        timeout_seconds: Longest wait in all.
        on_line: Called with every line of the first node's log.

    Returns:
        None if it ended well.

    Raises:
        UserError: If the cluster refuses to show the job or its pods.
    """
    began = last_beat = last_time = time.monotonic()
    last_words = began - EXPLAIN_SECONDS + BEAT_SECONDS
    started, waited, blocked, view = False, 0.0, 0.0, View()
    tails: Mapping[str, list[str]] = {}
    with _changes(lease) as (events, stop):
        output = Output(lease, events, stop, on_line)
        while True:
            view = _take(events, view, output, lease)
            tails = _with_tails(tails, lease.cluster, view)
            instant = time.monotonic()
            started = (started and not _is_suspended(view)) or _all_run(view, num_nodes)
            waited += 0.0 if started or _is_suspended(view) else instant - last_time
            blocked = blocked + instant - last_time if _is_blocked(view) else 0.0
            last_time = instant
            if instant - last_beat >= (BEAT_SECONDS if output.has_lines else IDLE_BEAT_SECONDS):
                output.flush()
                last_beat = instant
            if not started and instant - last_words >= EXPLAIN_SECONDS:
                print(f"waiting: {_why(lease.cluster, view, num_nodes)}", flush=True)
                last_words = instant
            if _is_over(view, instant):
                return _conclude(lease, view, output, events, tails)
            if blocked > BLOCKED_SECONDS:
                return _cannot_begin(_why(lease.cluster, view, num_nodes))
            if waited > start_timeout_seconds:
                return _too_long("start", start_timeout_seconds, _why(lease.cluster, view, num_nodes))
            if instant - began > timeout_seconds:
                return _too_long("end", timeout_seconds, _why(lease.cluster, view, num_nodes))


def _take(events: "Queue[Any]", view: View, output: Output, lease: Lease) -> View:
    """Waits a moment for something to change; returns the view with all that has."""
    view = _with_changes(events, view, output, lease)
    for pod in view.pods.values():
        output.attend(pod)
    return view


def _with_changes(events: "Queue[Any]", view: View, output: Output, lease: Lease) -> View:
    try:
        event = events.get(timeout=1.0)
        while True:
            if isinstance(event, Printed | Silent):
                output.take(event)
            elif isinstance(event, Broken):
                resource = RESOURCE if event.kind == "job" else "pods"
                with api_call("watch", resource, lease.cluster.namespace):
                    raise event.error
            else:
                view = updated(view, event, lease.uid, lease.created)
            event = events.get_nowait()
    except Empty:
        return view


def _all_run(view: View, num_nodes: int) -> bool:
    return sum(map(is_running, view.pods.values())) >= num_nodes


def _is_suspended(view: View) -> bool:
    return view.job is not None and condition(view.job, "Suspended") is not None


def _is_over(view: View, instant: float) -> bool:
    if view.job is None:
        return view.deleted
    if view.deleted or condition(view.job, "Complete") or condition(view.job, "Failed"):
        return True
    return bool(view.failed_at) and not _is_suspended(view) and instant - view.failed_at > SETTLE_SECONDS


def _why(cluster: Cluster, view: View, num_nodes: int) -> str:
    return why_waiting(cluster, view.job, list(view.pods.values()), num_nodes)


def _is_blocked(view: View) -> bool:
    states = (container(pod).get("state") or {} for pod in view.pods.values())
    return any((state.get("waiting") or {}).get("reason") in BLOCKED for state in states)


def _cannot_begin(why: str) -> Failure:
    message = (
        f"training cannot begin, and gives its nodes back after {BLOCKED_SECONDS / 60:g} minutes: {why}\n"
        "Mend what it names and start the run again."
    )
    return Failure(message, retryable=False, broken=False)


def _too_long(what: str, seconds: float, why: str) -> Failure:
    parameter = "start_timeout_minutes" if what == "start" else "timeout_hours"
    message = (
        f"training did not {what} within {seconds / 60:g} minutes (trainjob.{parameter}): {why}\n"
        "Mend what keeps it, or allow more time, and start the run again; whole checkpoints are kept."
    )
    return Failure(message, retryable=False, broken=False)


def _with_tails(tails: Mapping[str, list[str]], cluster: Cluster, view: View) -> Mapping[str, list[str]]:
    """The last lines of pods that ended badly, with those of pods that newly did: the cluster may soon forget them."""
    if not view.failed_at:
        return tails
    new = [end.pod for end in view.ends if end.pod not in tails][: PODS_SHOWN - len(tails)]
    return {**tails, **{pod: _last_lines(cluster, view.pods[pod]) for pod in new}}


def _conclude(
    lease: Lease, view: View, output: Output, events: "Queue[Any]", tails: Mapping[str, list[str]]
) -> Failure | None:
    """Prints the rest of the log and says how it ended."""
    end = time.monotonic() + LAST_LOG_SECONDS
    while not _is_told(view, output) and time.monotonic() < end:
        view = _take(events, view, output, lease)
    output.flush()
    output.print()
    if view.job is not None and condition(view.job, "Complete"):
        return None
    failed = condition(view.job, "Failed") if view.job is not None else None
    if failed and failed.get("reason") == "DeadlineExceeded":
        message = "training took longer than trainjob.timeout_hours, and was ended; whole checkpoints are kept."
        return Failure(f"{message}\nAllow more time and start the run again: it goes on.", retryable=False)
    if view.deleted and not view.failed_at:
        return Failure(
            f"TrainJob {lease.name} was deleted while this step waited for it; whole checkpoints are kept.\n"
            "If that was not on purpose, start the run again: it goes on.",
            retryable=False,
        )
    if not view.ends:
        words = f"{failed.get('reason')}: {failed.get('message')}" if failed else "no reason is known"
        # Trainer finds a job's state by name alone, also in what is left of a job that was deleted a moment before.
        is_another_s = failed is not None and failed.get("lastTransitionTime", "9") <= lease.created
        return Failure(f"TrainJob {lease.name} failed ({words})", retryable=is_another_s)
    return _diagnose(lease.cluster, view, tails)


def _is_told(view: View, output: Output) -> bool:
    """Whether the log has been read; of a job that ended well there is one, though its pod may not be known yet."""
    if not view.pods_known or not (output.has_begun or view.job is None or not condition(view.job, "Complete")):
        return False
    return output.is_silent or _goes_on(view)


def _goes_on(view: View) -> bool:
    """Whether the first node still runs although another has failed: it waits for that one, and its log has no end."""
    first = [container(pod).get("state") or {} for pod in view.pods.values() if node_of(pod) == 0]
    return bool(view.failed_at) and any("running" in state for state in first)


def _diagnose(cluster: Cluster, view: View, tails: Mapping[str, list[str]]) -> Failure:
    shown = sorted(view.ends, key=lambda end: end.time or "9")[:PODS_SHOWN]
    lines = {end.pod: tails.get(end.pod) or _last_lines(cluster, view.pods[end.pod]) for end in shown}
    lines = {pod: said or last_words(view.pods[pod]) for pod, said in lines.items()}
    known = [with_log(end, lines[end.pod]) for end in shown]
    return Failure(diagnosis(known, lines), first_cause(known).retryable)


def _last_lines(cluster: Cluster, pod: Pod) -> list[str]:
    """What the container that failed before a pod's own, or else that one, last said; empty if that is lost."""
    core = client.CoreV1Api(cluster.api)
    for previous in True, False:
        try:
            response = core.read_namespaced_pod_log(
                pod["metadata"]["name"], cluster.namespace, container=NODE, tail_lines=LAST_LINES, previous=previous,
                _preload_content=False,
            )  # fmt: skip
        except (client.ApiException, urllib3.exceptions.HTTPError):
            continue
        lines = response.data.decode(errors="replace").splitlines()
        if lines and not lines[0].startswith("unable to retrieve container logs"):
            return lines
    return []
