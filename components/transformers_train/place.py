"""Where a training runs: in the step's own pod, or on machines whose resources are named as v1's `train` names them."""

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from kfp_finetune.errors import Problem, UserError
from kfp_finetune.launch.trainjob.settings import Quantity
from kfp_finetune.settings import STRICT, read_partly, whole_numbers
from kfp_finetune.training import launcher as training
from kfp_finetune.training.cluster import Request, read_request

PREFIX = "resources_per_worker."
NODES = "num_workers"


@dataclass(frozen=True, config=STRICT)
class Resources:
    """What each machine's pod asks for.

    Args:
        gpu: GPUs, of which each process has one; 0 for none, None for as many as there are processes.
        cpu: CPUs, such as "5"; empty for no request.
        memory: Memory, such as "10G"; empty for no request.
    """

    gpu: Annotated[int, Field(ge=0)] | None = None
    cpu: Quantity = field(default="")
    memory: Quantity = field(default="")


def read_resources(values: Any) -> tuple[Resources, list[Problem]]:
    """Reads the parameter `resources_per_worker`.

    Args:
        values: What the user gave; amounts may be numbers or text.
    """
    if not isinstance(values, Mapping):
        allowed = 'an object such as {"gpu": 2, "cpu": 5, "memory": "10G"}'
        return Resources(), [Problem("resources_per_worker", repr(values), allowed, "Correct it.")]
    values = whole_numbers(values)
    given = {name: str(value) if _is_number(value) and name != "gpu" else value for name, value in values.items()}
    gpu = given.get("gpu")
    if isinstance(gpu, str) and gpu.isascii() and gpu.isdigit():
        given["gpu"] = int(gpu)
    resources, problems = read_partly(Resources, given, PREFIX)
    return resources or Resources(), problems


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_resources(values: Any, launcher: str, num_procs_per_worker: int, trainjob: Any) -> list[Problem]:
    """What is wrong with the parameter `resources_per_worker`.

    Args:
        values: What the user gave.
        launcher: "process" or "trainjob".
        num_procs_per_worker: Training processes on each machine.
        trainjob: What the user gave for the training pods.
    """
    resources, problems = read_resources(values)
    if values and launcher == "process":
        mend = "Leave it empty, or set launcher to trainjob."
        return [*problems, Problem("resources_per_worker", repr(values), "empty with launcher process", mend)]
    if resources.gpu not in (None, 0, num_procs_per_worker):
        allowed = f"{num_procs_per_worker}, one for each process (num_procs_per_worker), or 0 to train on CPUs"
        mend = "Set both to the same number."
        problems.append(Problem(f"{PREFIX}gpu", str(resources.gpu), allowed, mend))
    for name in ("cpu", "memory"):
        if getattr(resources, name) and isinstance(trainjob, Mapping) and trainjob.get(name):
            given = f"{getattr(resources, name)}, with {trainjob[name]} in trainjob"
            problems.append(Problem(f"{PREFIX}{name}", given, "one of the two", "Take one of them out."))
    return problems


def check_place(
    launcher: str,
    runtime: str,
    volume: str,
    trainjob: Any,
    workspace: str,
    num_workers: int,
    num_procs_per_worker: int,
    resources_per_worker: Any,
) -> list[Problem]:
    """What is wrong with where a training is to run, found before a GPU is asked for.

    Args:
        launcher: "process" or "trainjob".
        runtime: The training runtime.
        volume: PersistentVolumeClaim with the workspace.
        trainjob: What the user gave for the training pods.
        workspace: Where the volume is mounted.
        num_workers: Machines.
        num_procs_per_worker: Training processes on each.
        resources_per_worker: What the user gave for each machine's pod.
    """
    return [
        *training.check_launcher(launcher, runtime, volume, num_workers, trainjob, workspace, NODES),
        *check_resources(resources_per_worker, launcher, num_procs_per_worker, trainjob),
    ]


def read_place(
    runtime: str, image: str, volume: str, accelerator: str, resources_per_worker: Any, trainjob: Any, task_config: Any
) -> Request:
    """How a training is to run on a cluster.

    Args:
        runtime: Name of a runtime of Kubeflow Trainer for torch.
        image: Image of the training pods.
        volume: PersistentVolumeClaim with the workspace.
        accelerator: Kubernetes resource name of the GPUs; empty for CPUs.
        resources_per_worker: What the user gave for each machine's pod.
        trainjob: What the user gave for the training pods.
        task_config: KFP's `TaskConfig`, or None.

    Raises:
        UserError: With everything that is wrong.
    """
    resources, problems = read_resources(resources_per_worker)
    if problems:
        raise UserError(problems)
    amounts = {name: getattr(resources, name) for name in ("cpu", "memory") if getattr(resources, name)}
    kind = "" if resources.gpu == 0 else accelerator
    job = {**trainjob, **amounts} if isinstance(trainjob, Mapping) else trainjob
    return read_request(runtime, image, volume, kind, job, task_config)
