"""What a user can set of the pods that train, and how long to wait for them."""

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from kfp_finetune.errors import Problem
from kfp_finetune.settings import STRICT, read_settings, whole_numbers

Quantity = Annotated[str, Field(pattern=r"^([0-9]{1,15}(\.[0-9]{1,9})?(m|[KMGTPE]i|[kMGTPE])?)?$")]
"""A Kubernetes quantity, or nothing."""

_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
LabelName = Annotated[str, Field(pattern=rf"^([a-z0-9]([-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_NAME}$")]
LabelValue = Annotated[str, Field(pattern=rf"^({_NAME})?$")]


@dataclass(frozen=True, config=STRICT)
class JobSettings:
    """The pods of a training and the bounds on it.

    Args:
        cpu: CPUs of each node's pod, such as "8"; empty for no request.
        memory: Memory of each node's pod, such as "64Gi"; empty for no request.
        shared_memory: Size of /dev/shm, which counts as memory; empty for no bound but the pod's memory.
        service_account: Account of the training pods, which need no rights; empty for the namespace's default one.
        image_pull_secrets: Names of Secrets that hold a registry's credentials.
        node_selector: Labels of the nodes that may train.
        tolerations: Taints that are tolerated, as Kubernetes writes them.
        affinity: Affinity, as Kubernetes writes it.
        queue: Kueue's LocalQueue in which the job waits for its turn; the time there is no part of the start time-out.
        env: Environment variables of the training processes.
        env_from_secrets: Environment variables by Secret: {"WANDB_API_KEY": "SECRET/KEY"}.
        labels: Labels of the pods.
        annotations: Annotations of the pods.
        start_timeout_minutes: Longest wait until every pod runs.
        timeout_hours: Longest time from the job's creation to its end, waiting in a queue included.
        max_attempts: How often the training is begun at most; only what another attempt can mend leads to one.
    """

    cpu: Quantity = ""
    memory: Quantity = ""
    shared_memory: Quantity = ""
    service_account: Annotated[str, Field(pattern=r"^[a-z0-9.-]*$", max_length=253)] = ""
    image_pull_secrets: list[str] = field(default_factory=list)
    node_selector: dict[LabelName, LabelValue] = field(default_factory=dict)
    tolerations: list[dict[str, Any]] = field(default_factory=list)
    affinity: dict[str, Any] = field(default_factory=dict)
    queue: Annotated[str, Field(pattern=r"^[a-z0-9.-]*$", max_length=253)] = ""
    env: dict[str, str] = field(default_factory=dict)
    env_from_secrets: dict[str, Annotated[str, Field(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")]] = field(
        default_factory=dict
    )
    labels: dict[LabelName, LabelValue] = field(default_factory=dict)
    annotations: dict[LabelName, str] = field(default_factory=dict)
    start_timeout_minutes: Annotated[float, Field(gt=0, le=10_080)] = 60
    timeout_hours: Annotated[float, Field(gt=0, le=8_760)] = 168
    max_attempts: Annotated[int, Field(ge=1, le=20)] = 3


def read_job_settings(values: Any) -> tuple[JobSettings | None, list[Problem]]:
    """Reads the parameter `trainjob`.

    Args:
        values: What the user gave.

    Returns:
        The settings and no problem, or None and every problem.
    """
    if not isinstance(values, Mapping):
        allowed = f"an object with keys of {', '.join(JobSettings.__dataclass_fields__)}"
        return None, [Problem("trainjob", repr(values), allowed, "Correct it.")]
    settings, problems = read_settings(JobSettings, whole_numbers(values), "trainjob.")
    return settings, problems + [
        problem for name in ("env", "env_from_secrets") for problem in reserved_variables(name, values.get(name))
    ]


def reserved_variables(name: str, env: Any) -> list[Problem]:
    """The variables that Kubeflow Trainer sets and refuses from others, as one problem or none.

    Args:
        name: Of the setting that they are in.
        env: What the user gave for it.
    """
    taken = sorted(name for name in map(str, env) if name.startswith("PET_")) if isinstance(env, Mapping) else []
    if not taken:
        return []
    allowed = "names that do not begin with PET_, which Kubeflow Trainer sets for torchrun"
    return [Problem(f"trainjob.{name}", ", ".join(taken), allowed, "Take them out.")]
