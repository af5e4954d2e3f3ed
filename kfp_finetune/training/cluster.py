"""Runs a planned training on a cluster: the request, what is checked before, and what comes back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from kubernetes import client

from kfp_finetune.cluster.client import Cluster, api_call, connect, missing_right, patiently
from kfp_finetune.cluster.rights import STEP_RIGHTS, account_name, is_allowed
from kfp_finetune.cluster.secrets import creation_of, has_secret
from kfp_finetune.cluster.trainer import find_runtime, trainjob_fields
from kfp_finetune.errors import Problem, UserError, refuse
from kfp_finetune.launch.trainjob.names import RESOURCE, job_name
from kfp_finetune.launch.trainjob.run import run_trainjob
from kfp_finetune.launch.trainjob.settings import JobSettings, read_job_settings, reserved_variables
from kfp_finetune.launch.trainjob.spec import JobSpec
from kfp_finetune.progress import parse_progress
from kfp_finetune.training.environment import IMAGE_VARIABLE
from kfp_finetune.training.plan import Plan
from kfp_finetune.training.summary import Summary, parse_summary
from kfp_finetune.training.train import Worker
from kfp_finetune.workspace import MOUNT_PATH

FOR_VOLUMES = ("create pods", "delete pods")
"""Rights on pods that create_volume uses, and no training."""


@dataclass(frozen=True)
class Request:
    """How a training is to run on a cluster.

    Args:
        runtime: Name of a runtime of Kubeflow Trainer for torch.
        image: Image of the training pods.
        volume: PersistentVolumeClaim with the workspace.
        accelerator: Kubernetes resource name of the GPUs; empty for CPUs.
        settings: What else the user set.
        resources: Amounts of resources for each node.
        env: Environment variables as Kubernetes writes them.
        volumes: More volumes as Kubernetes writes them.
        volume_mounts: Where those are mounted.
    """

    runtime: str
    image: str
    volume: str
    accelerator: str
    settings: JobSettings
    resources: Mapping[str, str] = field(default_factory=dict)
    env: Sequence[Mapping[str, Any]] = ()
    volumes: Sequence[Mapping[str, Any]] = ()
    volume_mounts: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Outcome:
    """What the log of a training told.

    Args:
        summary: Its figures; None if the log was lost before it could be read.
        metrics: Those of the steps whose progress was printed.
    """

    summary: Summary | None
    metrics: list[dict[str, float]] = field(default_factory=list)


def read_request(runtime: str, image: str, volume: str, accelerator: str, trainjob: Any, task_config: Any) -> Request:
    """How a training is to run: what the user set, and below it what KFP passes through from the task.

    Args:
        runtime: See `Request`.
        image: See `Request`.
        volume: See `Request`.
        accelerator: See `Request`.
        trainjob: What the user gave for `JobSettings`.
        task_config: KFP's `TaskConfig`, or None.

    Raises:
        UserError: With everything that is wrong with `trainjob`.
    """
    settings, problems = read_job_settings(trainjob)
    if settings is None or problems:
        raise UserError(problems)
    request = Request(runtime, image, volume, accelerator, settings)
    return request if task_config is None else _with_task_config(request, task_config)


def _with_task_config(request: Request, task: Any) -> Request:
    """A request with what was set on the task where the user's own settings say nothing else."""
    settings = request.settings
    if problems := reserved_variables("env of the task", {variable["name"]: "" for variable in task.env or ()}):
        raise UserError(problems)
    amounts = {**((task.resources or {}).get("requests") or {}), **((task.resources or {}).get("limits") or {})}
    mounts = [mount for mount in task.volume_mounts or () if mount["mountPath"] != MOUNT_PATH]
    mounted = {mount["name"] for mount in mounts}
    settings = replace(
        settings,
        node_selector={**(task.node_selector or {}), **settings.node_selector},
        tolerations=[*(task.tolerations or ()), *settings.tolerations],
        affinity=settings.affinity or task.affinity or {},
    )
    return replace(
        request,
        settings=settings,
        resources=amounts,
        env=task.env or (),
        volumes=[volume for volume in task.volumes or () if volume["name"] in mounted],
        volume_mounts=mounts,
    )


def check_cluster(runtime: str, volume: str, num_nodes: int, trainjob: Any, nodes: str = "num_nodes") -> list[Problem]:
    """What keeps a training from running on the cluster at hand, found before a pod is asked for.

    Args:
        runtime: See `Request`.
        volume: See `Request`.
        num_nodes: Pods of the training.
        trainjob: What the user gave for `JobSettings`.
        nodes: The parameter that says how many pods.
    """
    settings, problems = read_job_settings(trainjob)
    try:
        cluster = connect()
        problems += _missing_rights(cluster)
        trainjob_fields(cluster)
    except UserError as error:
        return [*problems, *error.problems]
    checks: list[Callable[[], object]] = [
        partial(find_runtime, cluster, runtime),
        partial(_check_volume, cluster, volume, num_nodes, nodes),
        partial(_check_secrets, cluster, settings or JobSettings()),
    ]
    for check in checks:
        try:
            check()
        except UserError as error:
            problems += error.problems
    return problems


def _missing_rights(cluster: Cluster) -> list[Problem]:
    used = [right for right in STEP_RIGHTS if right.resource == RESOURCE or right.resource.startswith("pods")]
    missing = [right for right in used if str(right) not in FOR_VOLUMES and not is_allowed(cluster, right)]
    user = account_name(cluster) if missing else ""
    return [missing_right(user, right.verb, right.resource, cluster.namespace) for right in missing]


def _check_volume(cluster: Cluster, name: str, num_nodes: int, nodes: str) -> None:
    where = f"in namespace {cluster.namespace}"
    with api_call("get", "persistentvolumeclaims", cluster.namespace):
        try:
            claim = client.CoreV1Api(cluster.api).read_namespaced_persistent_volume_claim(name, cluster.namespace)
        except client.ApiException as error:
            if error.status != 404:
                raise
            mend = f"Create it (create_volume), or choose one: kubectl -n {cluster.namespace} get pvc."
            raise refuse("volume", f"{name!r}, of which there is none {where}", "a volume that exists", mend) from error
    if num_nodes > 1 and "ReadWriteMany" not in claim.spec.access_modes:
        raise refuse(
            nodes,
            f"{num_nodes}, with volume {name} that is {', '.join(claim.spec.access_modes)}",
            "1 with such a volume; more nodes need ReadWriteMany",
            f"Set access_mode to ReadWriteMany and volume to a new name, or {nodes} to 1.",
        )


def _check_secrets(cluster: Cluster, settings: JobSettings) -> None:
    """Looks for the Secrets that pods need, if this account may; else the pods' status tells which is missing."""
    named = [reference.split("/")[0] for reference in settings.env_from_secrets.values()]
    missing = [name for name in sorted({*named, *settings.image_pull_secrets}) if has_secret(cluster, name) is False]
    if missing:
        raise UserError(
            [
                Problem(
                    "trainjob",
                    f"secret {name!r}, of which there is none in namespace {cluster.namespace}",
                    "one that exists",
                    f"Create it: {creation_of(cluster, name)}",
                )
                for name in missing
            ]
        )


def train_on_cluster(plan: Plan, worker: Worker, request: Request, run: str) -> Outcome:
    """Trains, goes on with, or finds what a plan describes, as a TrainJob.

    Args:
        plan: The training.
        worker: What each process runs.
        request: How it is to run.
        run: Id of this pipeline run.

    Raises:
        UserError: If the cluster refuses it.
        LaunchError: If the training failed.
    """
    cluster = connect()
    spec = JobSpec(
        name=job_name(plan.key),
        runtime=request.runtime,
        runtime_kind=patiently(find_runtime)(cluster, request.runtime),
        image=request.image,
        command=["python", "-m", worker.node, "--training", plan.key, "--num-procs", str(plan.num_procs_per_node),
                 "--workspace", MOUNT_PATH, "--checkpoint-minutes", f"{plan.checkpoint_minutes:g}"],
        num_nodes=plan.num_nodes,
        num_procs_per_node=plan.num_procs_per_node,
        accelerator=request.accelerator,
        volume=request.volume,
        mount_path=MOUNT_PATH,
        settings=request.settings,
        resources=request.resources,
        env=[{"name": IMAGE_VARIABLE, "value": request.image}, *request.env],
        volumes=request.volumes,
        volume_mounts=request.volume_mounts,
    )  # fmt: skip
    summaries: list[Summary] = []
    metrics: dict[int, dict[str, float]] = {}

    def read(line: str) -> None:
        if progress := parse_progress(line):
            metrics[progress.done] = {"step": progress.done, **progress.figures}
        elif summary := parse_summary(line):
            summaries.append(summary)

    run_trainjob(cluster, spec, run, read)
    return Outcome(summaries[-1] if summaries else None, [metrics[step] for step in sorted(metrics)])
