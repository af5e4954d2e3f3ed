"""A TrainJob as the API takes it, made from what a user asked for and what the installed version understands."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kfp_finetune.cluster.ownership import MANAGED_BY
from kfp_finetune.cluster.pods import NO_SIDECAR, RESTRICTED
from kfp_finetune.cluster.trainer import GROUP, NODE, VERSION
from kfp_finetune.errors import refuse
from kfp_finetune.launch.trainjob.names import HEARTBEAT_PREFIX, RUN_PREFIX, SPEC_HASH, VOLUME
from kfp_finetune.launch.trainjob.settings import JobSettings

MANAGER = "kfp-finetune.io/launcher"
"""Who patched the runtime, as Trainer wants it named."""

VOLUME_PREFIX = "kfp-finetune-"
"""Of the volumes that this library adds, so that no other has their names."""

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


@dataclass(frozen=True)
class JobSpec:
    """A training on a cluster.

    Args:
        name: Of the TrainJob.
        runtime: Name of a TrainingRuntime or ClusterTrainingRuntime for torch.
        runtime_kind: Which of the two it is.
        image: Image of the training pods.
        command: What each pod runs; torchrun finds the others by the variables that Trainer sets.
        num_nodes: Pods.
        num_procs_per_node: Training processes in each.
        accelerator: Kubernetes resource name of the GPUs, of which each process has one; empty for CPUs.
        volume: PersistentVolumeClaim with the workspace.
        mount_path: Where it is mounted.
        settings: What else the user set.
        resources: Amounts of resources, for each node, below those of `settings` and `accelerator`.
        env: Environment variables as Kubernetes writes them, beside those of `settings`.
        volumes: Volumes as Kubernetes writes them, beside the workspace.
        volume_mounts: Where those are mounted.
    """

    name: str
    runtime: str
    runtime_kind: str
    image: str
    command: Sequence[str]
    num_nodes: int
    num_procs_per_node: int
    accelerator: str
    volume: str
    mount_path: str
    settings: JobSettings = field(default_factory=JobSettings)
    resources: Mapping[str, str] = field(default_factory=dict)
    env: Sequence[Mapping[str, Any]] = ()
    volumes: Sequence[Mapping[str, Any]] = ()
    volume_mounts: Sequence[Mapping[str, Any]] = ()


def trainjob(spec: JobSpec, fields: frozenset[str], run: str, now: str, seconds: float = 0.0) -> dict[str, Any]:
    """The TrainJob to create.

    Args:
        spec: The training.
        fields: Names of a TrainJob's properties that the cluster knows; see `cluster.trainer.trainjob_fields`.
        run: Id of the run that holds the job.
        now: The time, RFC 3339 in UTC.
        seconds: After which the job is ended; 0 for the settings' time-out.

    Raises:
        UserError: If the installed version cannot carry a setting.
    """
    body: dict[str, Any] = {
        "runtimeRef": {"apiGroup": GROUP, "kind": spec.runtime_kind, "name": spec.runtime},
        "trainer": {
            "image": spec.image,
            "command": list(spec.command),
            "env": _env(spec),
            "numNodes": spec.num_nodes,
            "numProcPerNode": spec.num_procs_per_node,
            "resourcesPerNode": _resources(spec),
        },
        **_patch(spec, fields),
    }
    labels = {**MANAGED_BY, f"{RUN_PREFIX}{run}": "holds"}
    if spec.settings.queue:
        labels[QUEUE_LABEL] = spec.settings.queue
    annotations = {SPEC_HASH: _hash(body), VOLUME: spec.volume, f"{HEARTBEAT_PREFIX}{run}": now}
    if "activeDeadlineSeconds" in fields:
        body["activeDeadlineSeconds"] = max(1, round(seconds or spec.settings.timeout_hours * 3600))
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": {"name": spec.name, "labels": labels, "annotations": annotations},
        "spec": body,
    }


def _hash(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]


def _env(spec: JobSpec) -> list[dict[str, Any]]:
    by_secret = {name: reference.split("/") for name, reference in spec.settings.env_from_secrets.items()}
    named = {variable["name"]: dict(variable) for variable in spec.env}
    named |= {name: {"name": name, "value": value} for name, value in spec.settings.env.items()}
    named |= {
        name: {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
        for name, (secret, key) in by_secret.items()
    }
    return list(named.values())


def _resources(spec: JobSpec) -> dict[str, Any]:
    asked = {"cpu": spec.settings.cpu, "memory": spec.settings.memory}
    amounts = {**spec.resources, **{name: amount for name, amount in asked.items() if amount}}
    if spec.accelerator:
        amounts[spec.accelerator] = str(spec.num_procs_per_node)
    return {"requests": amounts, "limits": amounts}


def _pod(spec: JobSpec) -> dict[str, Any]:
    """What is added to the runtime's pods; what the user mounts at one of our places takes it."""
    shared_memory = {"medium": "Memory"}
    if spec.settings.shared_memory:
        shared_memory["sizeLimit"] = spec.settings.shared_memory
    ours: dict[str, tuple[str, dict[str, Any]]] = {
        spec.mount_path: ("workspace", {"persistentVolumeClaim": {"claimName": spec.volume}}),
        "/dev/shm": ("shared-memory", {"emptyDir": shared_memory}),
        "/tmp": ("tmp", {"emptyDir": {}}),
    }
    taken = {mount["mountPath"] for mount in spec.volume_mounts}
    free = [(path, f"{VOLUME_PREFIX}{name}", kind) for path, (name, kind) in ours.items() if path not in taken]
    volumes = [*({"name": name, **kind} for _, name, kind in free), *map(dict, spec.volumes)]
    mounts = [*({"name": name, "mountPath": path} for path, name, _ in free), *map(dict, spec.volume_mounts)]
    settings = spec.settings
    wanted = {
        "serviceAccountName": settings.service_account,
        "imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets],
        "nodeSelector": settings.node_selector,
        "tolerations": settings.tolerations,
        "affinity": settings.affinity,
    }
    container = {"name": NODE, "volumeMounts": mounts}
    return {**{name: value for name, value in wanted.items() if value}, "volumes": volumes, "containers": [container]}


def _metadata(spec: JobSpec) -> dict[str, Any]:
    return {
        "labels": {**spec.settings.labels, **MANAGED_BY, **NO_SIDECAR},
        "annotations": {**spec.settings.annotations, **NO_SIDECAR},
    }


def _runtime_patches(spec: JobSpec) -> list[dict[str, Any]]:
    pod = _pod(spec)
    (container,) = pod["containers"]
    secured = {**pod, "containers": [{**container, "securityContext": RESTRICTED}]}
    template = {"metadata": _metadata(spec), "spec": secured}
    job = {"name": NODE, "template": {"spec": {"template": template}}}
    return [{"manager": MANAGER, "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [job]}}}}]


def _pod_template_overrides(spec: JobSpec) -> list[dict[str, Any]]:
    return [{"targetJobs": [{"name": NODE}], "metadata": _metadata(spec), "spec": _pod(spec)}]


def _pod_spec_overrides(spec: JobSpec) -> list[dict[str, Any]]:
    asked = [name for name in NOT_IN_2_0 if getattr(spec.settings, name)]
    if asked:
        raise refuse(
            ", ".join(f"trainjob.{name}" for name in asked),
            "with Kubeflow Trainer 2.0",
            "Kubeflow Trainer 2.1 or newer for them",
            "Set it in the runtime, for all trainings, and take it out of trainjob; or have Kubeflow Trainer upgraded.",
        )
    return [{"targetJobs": [{"name": NODE}], **_pod(spec)}]


NOT_IN_2_0 = ("affinity", "annotations", "image_pull_secrets", "labels")
"""Settings that `podSpecOverrides` has no field for."""

PATCHES: Mapping[str, Callable[[JobSpec], list[dict[str, Any]]]] = {
    "runtimePatches": _runtime_patches,
    "podTemplateOverrides": _pod_template_overrides,
    "podSpecOverrides": _pod_spec_overrides,
}
"""How the runtime's pods are changed, by the name that the field has since Trainer 2.2, in 2.1 and in 2.0.

The older two take no security context of a container: there the runtime's own holds.
"""


def _patch(spec: JobSpec, fields: frozenset[str]) -> dict[str, Any]:
    name = next(name for name in PATCHES if name in fields)
    return {name: PATCHES[name](spec)}
