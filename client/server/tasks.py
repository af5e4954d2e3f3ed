"""The steps of a run, read from what Kubeflow Pipelines tells of its Argo workflow.

A run's details are a flat list of Argo nodes without their own ids; each names the ids of its children. An id is the
workflow's name and the FNV-1a hash of the node's full name, such as "wf(0).root(0).train(0).executor(0)" (Argo's
`NodeID`), so that the full names can be found again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import kfp_server_api

CONTAINER_TEMPLATE, DRIVER_TEMPLATE = "system-container-impl", "system-container-driver"
"""KFP's names of the Argo templates of a step's own pod, and of the pod that prepares it."""

ENDED_BADLY = frozenset({"FAILED", "ERROR", "CANCELED"})
ENDED = ENDED_BADLY | {"SUCCEEDED", "SKIPPED", "CACHED"}


@dataclass(frozen=True)
class Step:
    """A step of a run that has begun.

    Args:
        name: As in the pipeline: "initialize-dataset".
        state: KFP's word: PENDING, RUNNING, SUCCEEDED, FAILED, ...
        pod: Name of its pod.
        node: Argo's id of it, under which an archived log is found.
        seconds: How long it took; None while it runs.
    """

    name: str
    state: str
    pod: str
    node: str
    seconds: float | None = None

    @property
    def ended(self) -> bool:
        """Whether it will not change any more."""
        return self.state in ENDED

    @property
    def failed(self) -> bool:
        """Whether it ended badly."""
        return self.state in ENDED_BADLY


def read_steps(details: Sequence[kfp_server_api.V2beta1PipelineTaskDetail]) -> list[Step]:
    """The steps that have begun, in the order of their beginning.

    Args:
        details: `run.run_details.task_details`.
    """
    tasks = [task for task in details if task.display_name]
    children = {child.pod_name: task for task in tasks for child in task.child_tasks or [] if child.pod_name}
    if not children:
        return []
    workflow = next(iter(children)).rpartition("-")[0]
    full_names = _full_names(workflow, {task.display_name for task in tasks}, children.keys())
    parents = {full: children[_node_id(workflow, full)] for full in full_names}
    found = []
    for full in full_names:
        if full.endswith(".executor(0)"):
            step = full.removesuffix(".executor(0)").removesuffix("(0)")
            owner = parents[f"{step}(0)"]
            found.append((owner.start_time, _step(workflow, step, full, CONTAINER_TEMPLATE, owner)))
        elif full.endswith("-driver(0)"):
            owner = parents[full]
            if owner.state in ENDED_BADLY:  # the step's own pod never came to be
                step = full.removesuffix("-driver(0)")
                found.append((owner.start_time, _step(workflow, step, full, DRIVER_TEMPLATE, owner)))
    return [step for _, step in sorted(found, key=lambda timed: str(timed[0]))]


def _full_names(workflow: str, names: Iterable[str], ids: Iterable[str]) -> list[str]:
    known, found, frontier = set(ids), [], [workflow]
    endings = ["(0)", ".onExit", *(f".{name}" for name in names if not name.endswith("(0)"))]
    while frontier:
        frontier = [full + end for full in frontier for end in endings if _node_id(workflow, full + end) in known]
        found += frontier
    return found


def _step(workflow: str, step: str, full: str, template: str, owner: kfp_server_api.V2beta1PipelineTaskDetail) -> Step:
    node = _node_id(workflow, full)
    seconds = (owner.end_time - owner.start_time).total_seconds() if owner.state in ENDED else None
    return Step(step.rpartition(".")[2], owner.state, f"{workflow}-{template}-{_hash(full)}", node, seconds)


def _node_id(workflow: str, full_name: str) -> str:
    return f"{workflow}-{_hash(full_name)}"


def _hash(text: str) -> int:
    """FNV-1a in 32 bits, as Go's hash/fnv has it."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value
