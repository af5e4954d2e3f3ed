"""A cluster in which a training of any number of nodes is played: an API server on loopback, and pods that are told.

Nothing runs in it. A TrainJob that is created gets its pods, each with the changes that a cluster tells of one; the
first node's log grows by a line a step, and at the end all pods have ended well, or some have failed.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any

from kfp_finetune.cluster.client import Cluster
from kfp_finetune.cluster.trainer import GROUP, NODE, VERSION
from kfp_finetune.launch.trainjob.names import JOBSET_LABEL, NODE_LABEL

from .kubernetes_api import Answer, Request, refuse, say, serving

NAMESPACE = "here"
JOBS = f"/apis/{GROUP}/{VERSION}/namespaces/{NAMESPACE}/trainjobs"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
EVENTS = f"/api/v1/namespaces/{NAMESPACE}/events"
DISCOVERY = f"/openapi/v3/apis/{GROUP}/{VERSION}"

FIELDS = ("runtimeRef", "trainer", "runtimePatches", "activeDeadlineSeconds", "suspend")
LAST_WORDS = "training ended with exit status 1\nValueError: it broke"


@dataclass(frozen=True)
class Play:
    """What happens to the training.

    Args:
        steps: Lines that the first node prints while it trains.
        seconds_a_step: Between two of them.
        failing: Numbers of the nodes that fail behind the last step; if there are any, the others go on for ever.
        forgets: Whether the cluster deletes the pods that failed at once, as a runtime does that starts the job again.
        leftover: Whether the first TrainJob finds the JobSet of one before it that had failed, and has its state.
    """

    steps: int = 5
    seconds_a_step: float = 0.01
    failing: tuple[int, ...] = ()
    forgets: bool = False
    leftover: bool = False


@dataclass
class Played:
    """The cluster as it is, and what was asked of it.

    Args:
        play: What happens to a training.
        counts: Requests, by verb and resource.
        log_bytes: Of logs, as they were sent.
        told: Changes of pods, as they were sent.
    """

    play: Play
    counts: Counter[str] = field(default_factory=Counter)
    log_bytes: int = 0
    told: int = 0
    objects: dict[str, dict[str, dict[str, Any]]] = field(default_factory=lambda: {JOBS: {}, PODS: {}})
    changes: list[tuple[str, str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def put(self, kind: str, thing: dict[str, Any]) -> None:
        """Makes an object, or changes it."""
        with self.changed:
            name = thing["metadata"]["name"]
            self._tell("MODIFIED" if name in self.objects[kind] else "ADDED", kind, thing)
            self.objects[kind][name] = thing

    def remove(self, kind: str, name: str) -> None:
        """Removes an object that may be gone already."""
        with self.changed:
            if thing := self.objects[kind].pop(name, None):
                self._tell("DELETED", kind, thing)

    def _tell(self, what: str, kind: str, thing: dict[str, Any]) -> None:
        thing["metadata"]["resourceVersion"] = str(len(self.changes) + 1)
        self.changes.append((kind, json.dumps({"type": what, "object": thing})))
        self.changed.notify_all()

    def say(self, line: str) -> None:
        """Has the first node print a line."""
        with self.changed:
            self.lines.append(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}000Z {line}\n")
            self.changed.notify_all()

    def changes_after(self, version: int) -> list[tuple[str, str]]:
        """Waits until there are changes behind a version; gives all of them, each with its kind."""
        with self.changed:
            self.changed.wait_for(lambda: len(self.changes) > version)
            return self.changes[version:]

    def lines_after(self, count: int, pod: str) -> tuple[list[str], bool]:
        """Waits until the first node has printed more, or has ended; gives what it printed, and whether it goes on."""
        with self.changed:
            self.changed.wait_for(lambda: len(self.lines) > count or not self._runs(pod))
            return self.lines[count:], self._runs(pod)

    def _runs(self, pod: str) -> bool:
        return pod in self.objects[PODS] and self.objects[PODS][pod]["status"]["phase"] == "Running"


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _pod(job: dict[str, Any], node: int) -> dict[str, Any]:
    name = job["metadata"]["name"]
    return {
        "metadata": {
            "name": f"{name}-node-0-{node}-{job['metadata']['uid'][-5:]}",
            "uid": f"{job['metadata']['uid']}-{node}",
            "creationTimestamp": _now(),
            "labels": {NODE_LABEL: str(node), JOBSET_LABEL: name},
        },
        "spec": {"containers": [{"name": NODE, "image": job["spec"]["trainer"]["image"]}]},
        "status": {"phase": "Pending"},
    }


def _with_state(pod: dict[str, Any], phase: str, state: dict[str, Any]) -> dict[str, Any]:
    """A copy of a pod that has its machine and whose container is in a state."""
    container = {
        "name": NODE, "image": "image", "imageID": "", "ready": phase == "Running", "restartCount": 0, "state": state
    }  # fmt: skip
    spec = {**pod["spec"], "nodeName": f"machine-{pod['metadata']['labels'][NODE_LABEL]}"}
    metadata = {**pod["metadata"]}
    return {"metadata": metadata, "spec": spec, "status": {"phase": phase, "containerStatuses": [container]}}


def _terminated(code: int) -> dict[str, Any]:
    words = {"message": LAST_WORDS} if code else {}
    return {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed", "finishedAt": _now(), **words}}


def _run(played: Played, job: dict[str, Any]) -> None:
    """Plays a training from when it is watched to its end: five changes a pod."""
    with played.changed:
        played.changed.wait_for(lambda: played.counts["watch pods"])
    pods = [_pod(job, node) for node in range(job["spec"]["trainer"]["numNodes"])]
    for pod in pods:
        played.put(PODS, pod)
    for pod in pods:
        played.put(PODS, {**pod, "spec": {**pod["spec"], "nodeName": "machine"}, "metadata": {**pod["metadata"]}})
    for state in {"waiting": {"reason": "ContainerCreating"}}, {"running": {"startedAt": _now()}}:
        for pod in pods:
            played.put(PODS, _with_state(pod, "Running" if "running" in state else "Pending", state))
    for step in range(1, played.play.steps + 1):
        time.sleep(played.play.seconds_a_step)
        played.say(f'progress {{"what": "train", "done": {step}, "total": {played.play.steps}, "unit": "step"}}')
    failing = played.play.failing
    for node, pod in enumerate(pods):
        if not failing or node in failing:
            failed = node in failing
            end = _with_state(pod, "Failed" if failed else "Succeeded", _terminated(int(failed)))
            played.put(PODS, end)
            if failed and played.play.forgets:
                played.remove(PODS, pod["metadata"]["name"])
    if not failing:
        conditions = [{"type": "Complete", "status": "True", "reason": "AllJobsCompleted", "message": "jobs completed"}]
        there = played.objects[JOBS][job["metadata"]["name"]]
        played.put(JOBS, {**there, "metadata": {**there["metadata"]}, "status": {"conditions": conditions}})


def _create(played: Played, request: Request) -> Answer:
    job = json.loads(request.body)
    job["metadata"] |= {"uid": f"uid-{len(played.changes):05}", "creationTimestamp": _now()}
    if played.play.leftover and played.counts["create trainjobs"] == 1:
        condition = {"type": "Failed", "status": "True", "reason": "FailedJobs", "message": "jobset failed"}
        job["status"] = {"conditions": [condition | {"lastTransitionTime": _now()}]}
        played.put(JOBS, job)
        return say(job, 201)
    played.put(JOBS, job)
    threading.Thread(target=_run, args=(played, job), daemon=True).start()
    return say(job, 201)


def _patch(played: Played, request: Request) -> Answer:
    name = request.path.rpartition("/")[2]
    with played.changed:
        if name not in played.objects[JOBS]:
            return refuse(404)
        job, change = played.objects[JOBS][name], json.loads(request.body)["metadata"]
        metadata = {**job["metadata"]}
        for part in "labels", "annotations":
            metadata[part] = {**metadata.get(part, {}), **change.get(part, {})}
        patched = {**job, "metadata": metadata}
        played.put(JOBS, patched)
    return say(patched)


def _delete(played: Played, request: Request) -> Answer:
    played.remove(JOBS, request.path.rpartition("/")[2])
    for name in list(played.objects[PODS]):
        played.remove(PODS, name)
    return say({"status": "Success"})


def _watch(played: Played, kind: str, since: int) -> Answer:
    def pieces() -> Iterator[bytes]:
        sent = since
        while True:
            fresh = played.changes_after(sent)
            sent += len(fresh)
            mine = [line for of, line in fresh if of == kind]
            played.told += len(mine) if kind == PODS else 0
            yield "".join(f"{line}\n" for line in mine).encode()

    return _chunks(pieces())


def _log(played: Played, request: Request) -> Answer:
    """The log of the first node; the other nodes have said nothing."""
    name = request.path.split("/")[-2]
    if name not in played.objects[PODS]:
        return refuse(404)
    if request.query.get("previous") == "True":
        return refuse(400)
    if played.objects[PODS][name]["metadata"]["labels"][NODE_LABEL] != "0":
        return say("nothing was said\n")

    oldest = datetime.now(UTC) - timedelta(seconds=int(request.query.get("sinceSeconds", 10**9)))
    begin = sum(line < f"{oldest:%Y-%m-%dT%H:%M:%S}" for line in played.lines)
    begin = max(begin, len(played.lines) - int(request.query.get("tailLines", 10**9)))

    def pieces() -> Iterator[bytes]:
        sent, goes_on = begin, True
        while goes_on:
            fresh, goes_on = played.lines_after(sent, name)
            sent += len(fresh)
            data = "".join(fresh).encode()
            played.log_bytes += len(data)
            yield data
            goes_on = goes_on and request.query.get("follow") == "True"

    return _chunks(pieces())


def _chunks(pieces: Iterator[bytes]) -> Answer:
    """Answers with pieces as they come, until there are no more or nobody reads."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        try:
            for piece in filter(None, pieces):
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            handler.wfile.write(b"0\r\n\r\n")
        except OSError:
            handler.close_connection = True

    return answer


def _verb(request: Request) -> str:
    """A request in the API server's words, as its audit log has them."""
    resource = "trainjobs" if request.path.startswith(JOBS) else "pods" if request.path.startswith(PODS) else ""
    if not resource:
        return "list events" if request.path == EVENTS else "discovery"
    if request.path.endswith("/log"):
        return "read pods/log"
    changes = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}
    if request.method in changes:
        return f"{changes[request.method]} {resource}"
    if request.path not in (JOBS, PODS):
        return f"get {resource}"
    return f"{'watch' if request.query.get('watch') == 'True' else 'list'} {resource}"


def _answer(played: Played, request: Request) -> Answer:
    verb = _verb(request)
    with played.changed:
        played.counts[verb] += 1
        played.changed.notify_all()
    kind, _, name = request.path.rpartition("/")
    if verb == "discovery":
        schema = {
            "x-kubernetes-group-version-kind": [{"group": GROUP, "version": VERSION, "kind": "TrainJob"}],
            "properties": {"spec": {"properties": {name: {} for name in FIELDS}}},
        }
        return say({"components": {"schemas": {"TrainJob": schema}}})
    changing = {"create trainjobs": _create, "patch trainjobs": _patch, "delete trainjobs": _delete}
    if verb in changing:
        return changing[verb](played, request)
    if verb == "read pods/log":
        return _log(played, request)
    if verb.startswith("watch"):
        return _watch(played, request.path, int(request.query["resourceVersion"]))
    with played.changed:
        if verb.startswith("get"):
            found = played.objects[kind].get(name)
            return say(found) if found else refuse(404)
        items = list(played.objects.get(request.path, {}).values())
        items = items[: int(request.query.get("limit", len(items)))]
        return say({"metadata": {"resourceVersion": str(len(played.changes))}, "items": items})


@contextmanager
def playing(play: Play) -> Iterator[tuple[Played, Cluster]]:
    """A cluster in which every training goes as a play says.

    Args:
        play: The play.
    """
    played = Played(play)
    with serving(lambda request: _answer(played, request)) as (_, api):
        yield played, Cluster(api, NAMESPACE)
