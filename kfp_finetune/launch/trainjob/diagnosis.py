"""Why a training failed, in words, and whether another attempt can mend it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from kfp_finetune.cluster.pods import Pod as Pod
from kfp_finetune.cluster.pods import container_status
from kfp_finetune.cluster.trainer import NODE
from kfp_finetune.errors import USER_ERROR_STATUS
from kfp_finetune.launch.process import NO_SPACE, SMALLER_BATCHES, TERMINATED
from kfp_finetune.launch.trainjob.names import NODE_LABEL

OUT_OF_MEMORY = (
    "Set batch_size to 0 (as many rows as fit), lower max_seq_len, set advanced.enable_activation_checkpointing, or "
    "take more nodes"
)
SIGKILL = (
    f"a process was killed (SIGKILL), as the kernel does when memory runs out. {OUT_OF_MEMORY}, or raise "
    "trainjob.memory"
)

DISRUPTIONS = frozenset(
    {
        "Evicted",
        "NodeAffinity",
        "NodeLost",
        "NodeShutdown",
        "Preempting",
        "Shutdown",
        "Terminated",
        "UnexpectedAdmissionError",
    }
)
"""A pod's reasons for which its machine, not the training, is to blame; so are those like "OutOfcpu"."""

KILLED = 137
"""Exit status of a container that a signal ended which cannot be caught (128 + SIGKILL)."""

TIME = "%Y-%m-%dT%H:%M:%SZ"
"""As Kubernetes writes a time in UTC."""

CONTAINER_LOST = "ContainerStatusUnknown"
"""What a machine says of a container that it no longer knows, mostly since it was started again itself."""


@dataclass(frozen=True)
class Ended:
    """How one node's pod ended.

    Args:
        pod: Its name.
        node: The node's number in the training.
        machine: The cluster's node that it ran on; empty if it never did.
        cause: In words.
        retryable: Whether another attempt can mend it.
        time: When, RFC 3339; empty if unknown.
        consequence: Whether a failure of another node alone explains it.
    """

    pod: str
    node: int
    machine: str
    cause: str
    retryable: bool
    time: str
    consequence: bool = False


@dataclass(frozen=True)
class Pattern:
    """What a log says about a failure.

    Args:
        expression: Found in the last lines.
        cause: What it means.
        retryable: Whether another attempt can mend it.
        consequence: Whether a failure of another node alone explains it.
    """

    expression: str
    cause: str
    retryable: bool = False
    consequence: bool = False


PATTERNS = (
    Pattern(NO_SPACE, "the volume is full. Free space on it or enlarge it; whole checkpoints are kept"),
    Pattern(SMALLER_BATCHES, SMALLER_BATCHES, retryable=True),
    Pattern(r"torch\.(cuda\.)?OutOfMemoryError|CUDA out of memory", f"the GPU's memory is too small. {OUT_OF_MEMORY}"),
    Pattern(
        r"exitcode\s*:\s*-9\b|Signal 9 \(SIGKILL\)",
        SIGKILL,
    ),
    Pattern(
        r"Watchdog caught collective operation timeout|NCCL.*(timeout|timed out)|ncclRemoteError|ncclSystemError",
        "the nodes lost each other (NCCL)",
        retryable=True,
        consequence=True,
    ),
    Pattern(
        r"Connection (closed by peer|reset by peer|refused)|Broken pipe|DistNetworkError|DistStoreError"
        r"|Timed out waiting \d+ms",
        "the nodes lost each other (network)",
        retryable=True,
        consequence=True,
    ),
    Pattern(r"SignalException|got signal: 15", "it was told to stop (SIGTERM)", retryable=True, consequence=True),
)
"""In the order in which they are looked for."""


def node_of(pod: Pod) -> int:
    """The number of a pod's node in the training."""
    labels = pod["metadata"].get("labels") or {}
    return int(labels.get(NODE_LABEL, "-1"))


def container(pod: Pod) -> Mapping[str, Any]:
    """The status of a pod's training container; empty while there is none."""
    return container_status(pod, NODE)


def is_running(pod: Pod) -> bool:
    """Whether a pod's training container runs or has ended well."""
    state = container(pod).get("state") or {}
    return "running" in state or (state.get("terminated") or {}).get("exitCode") == 0


def has_restarted(pod: Pod) -> bool:
    """Whether the cluster has started a pod's training container again after it failed."""
    return container(pod).get("restartCount", 0) > 0


def ended(pod: Pod) -> Ended | None:
    """How a pod ended badly, by its status alone; None if it did not.

    A runtime may start a container again that failed; to a training of several nodes it is lost all the same.
    """
    metadata, status, final = pod["metadata"], pod.get("status") or {}, _final(pod)
    if final.get("exitCode") == 0 and status.get("phase") != "Failed":
        return None
    here = {"pod": metadata["name"], "node": node_of(pod), "machine": (pod.get("spec") or {}).get("nodeName", "")}
    time = final.get("finishedAt") or (f"{_deletion_asked(metadata):{TIME}}" if "deletionTimestamp" in metadata else "")
    if final.get("reason") == "OOMKilled":
        cause = f"out of memory (OOMKilled): the pod's memory is too small. {OUT_OF_MEMORY}, or raise trainjob.memory"
        return Ended(**here, cause=cause, retryable=False, time=time)
    if disruption := _disruption(metadata, status, final):
        return Ended(**here, cause=disruption, retryable=True, time=time)
    if final:
        code = final["exitCode"]
        if code == TERMINATED:
            return Ended(**here, cause="it was told to stop (SIGTERM)", retryable=True, time=time, consequence=True)
        if code == KILLED and final.get("reason") == "Error":
            return Ended(**here, cause=SIGKILL, retryable=False, time=time)
        said = "it refused what it was given" if code == USER_ERROR_STATUS else f"it ended with exit status {code}"
        words = " ".join(filter(None, [final.get("reason"), final.get("message")]))
        cause = f"{said} ({words})" if words and final.get("reason") != "Error" else said
        return Ended(**here, cause=cause, retryable=final.get("reason") == CONTAINER_LOST, time=time)
    if status.get("phase") == "Failed":
        cause = f"it failed ({status.get('reason', 'no reason')}: {status.get('message', 'no message')})"
        return Ended(**here, cause=cause, retryable=False, time=time)
    return None


def last_words(pod: Pod) -> list[str]:
    """What a pod's container left in its termination message when it failed: it outlives the log."""
    final = _final(pod)
    return str(final.get("message") or "").splitlines() if final.get("reason") == "Error" else []


def _final(pod: Pod) -> Mapping[str, Any]:
    """How a pod's container, or the one that failed before it, ended; empty if it has not.

    The machine removes what is left of the one before after a while, and tells no more of it.
    """
    states = (container(pod).get(name) or {} for name in ("lastState", "state"))
    return next((state["terminated"] for state in states if state.get("terminated")), {})


def as_it_ended(known: Pod, pod: Pod) -> Pod:
    """A pod as it is now or, if its container has failed, as it was then.

    Its machine starts the container again, which may end otherwise, and forgets what became of the one before.

    Args:
        known: As it was last known.
        pod: As it is now.
    """
    is_another = known["metadata"]["uid"] != pod["metadata"]["uid"]
    if is_another or not _final(known).get("exitCode"):
        return pod
    status = pod.get("status") or {}
    return pod if status.get("phase") == "Succeeded" or _taken_away(status) else known


def _disruption(metadata: Mapping[str, Any], status: Mapping[str, Any], final: Mapping[str, Any]) -> str:
    """How the cluster took a pod away; empty if it did not, or only after the pod had failed by itself."""
    is_deleted = metadata.get("deletionTimestamp") and not _failed_before(metadata, final)
    return _taken_away(status) or ("it was deleted" if is_deleted else "")


def _taken_away(status: Mapping[str, Any]) -> str:
    """How the cluster took a pod away, by its status; empty if that does not say so."""
    target = next((one for one in status.get("conditions") or () if one["type"] == "DisruptionTarget"), None)
    if target and target["status"] == "True":
        return f"the cluster took it away ({target.get('reason')}: {target.get('message')})"
    reason = status.get("reason") or ""
    if reason in DISRUPTIONS or reason.startswith("OutOf"):
        return f"the cluster took it away ({reason}: {status.get('message', 'no message')})"
    return ""


def _failed_before(metadata: Mapping[str, Any], final: Mapping[str, Any]) -> bool:
    """Whether a pod's container had failed when the pod's deletion was asked for, as some runtimes do to begin anew."""
    if not final.get("finishedAt") or final["exitCode"] == TERMINATED:
        return False
    return datetime.fromisoformat(final["finishedAt"]) <= _deletion_asked(metadata)


def _deletion_asked(metadata: Mapping[str, Any]) -> datetime:
    """When a pod's deletion was asked for: its own time is when the pod is to be gone at the latest."""
    grace = timedelta(seconds=metadata.get("deletionGracePeriodSeconds") or 0)
    return datetime.fromisoformat(metadata["deletionTimestamp"]) - grace


def with_log(end: Ended, lines: Sequence[str]) -> Ended:
    """What a pod's last lines add to how it ended."""
    if end.retryable or "OOMKilled" in end.cause or end.cause.startswith("it refused"):
        return end
    text = "\n".join(lines)
    for pattern in PATTERNS:
        if re.search(pattern.expression, text):
            return Ended(
                end.pod, end.node, end.machine, pattern.cause, pattern.retryable, end.time, pattern.consequence
            )
    return end


def first_cause(ends: Iterable[Ended]) -> Ended:
    """The end that explains the others: the earliest of those that no other node's failure explains.

    Args:
        ends: At least one.
    """
    return min(ends, key=lambda end: (end.consequence, end.time or "9", end.node))


def diagnosis(ends: Sequence[Ended], last_lines: Mapping[str, Sequence[str]]) -> str:
    """A failure in words: its cause, and what every node last said.

    Args:
        ends: At least one.
        last_lines: Of the pods' logs, by pod.
    """
    cause = first_cause(ends)
    where = f"node {cause.node} ({cause.pod}{f' on {cause.machine}' if cause.machine else ''})"
    parts = [f"training failed on {where}: {cause.cause}"]
    for end in sorted(ends, key=lambda end: end.node):
        lines = last_lines.get(end.pod) or [
            "(its log is gone; what it wrote before is in the training's folder, logs/)"
        ]
        parts += [f"--- node {end.node}, {end.pod}: {end.cause.partition('. ')[0]}", *lines]
    return "\n".join(parts)
