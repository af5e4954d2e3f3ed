"""What Kubeflow Trainer offers in a cluster: the fields of a TrainJob, and the runtimes."""

from dataclasses import dataclass
from typing import Any

from kubernetes import client

from kfp_finetune.cluster.client import Cluster, ForbiddenError, api_call
from kfp_finetune.errors import Problem, UserError, refuse

GROUP = "trainer.kubeflow.org"
VERSION = "v1alpha1"

JOBSET_GROUP = "jobset.x-k8s.io"

NODE = "node"
"""Name of the replicated job of a runtime that trains, and of its container."""

CLUSTER_RUNTIME = "ClusterTrainingRuntime"
NAMESPACE_RUNTIME = "TrainingRuntime"

_MANIFESTS = "https://github.com/kubeflow/trainer.git/manifests/overlays/{}?ref=v2.3.0"
_INSTALL = " && ".join(
    f'kubectl apply --server-side -k "{_MANIFESTS.format(overlay)}"' for overlay in ("manager", "runtimes")
)
_ROLE_LABEL = "trainer.kubeflow.org/trainjob-ancestor-step"


@dataclass(frozen=True)
class Runtime:
    """A runtime that a training can name.

    Args:
        name: Its name.
        kind: "TrainingRuntime" or "ClusterTrainingRuntime".
        unfit: Why it cannot run a training of this library; "" if it can.
    """

    name: str
    kind: str
    unfit: str


def trainjob_fields(cluster: Cluster) -> frozenset[str]:
    """The fields of a TrainJob's spec in the version of Kubeflow Trainer that is installed.

    They come from API discovery, which every account may read.

    Args:
        cluster: The cluster.

    Raises:
        UserError: If Kubeflow Trainer is not installed, or not with the version of its API that is used here.
    """
    schemas = _read(cluster, f"/openapi/v3/apis/{GROUP}/{VERSION}").get("components", {}).get("schemas", {})
    wanted = {"group": GROUP, "version": VERSION, "kind": "TrainJob"}
    for schema in schemas.values():
        if wanted in schema.get("x-kubernetes-group-version-kind", ()):
            return frozenset(schema["properties"]["spec"]["properties"])
    raise _not_installed(cluster)


def find_runtime(cluster: Cluster, name: str) -> str:
    """The kind of the runtime that a name stands for: the one of the namespace, or else that of the cluster.

    Args:
        cluster: The cluster, with the namespace of the training.
        name: Name of the runtime.

    Returns:
        "TrainingRuntime" or "ClusterTrainingRuntime".

    Raises:
        UserError: If there is no runtime of that name, if it does not fit, or if the cluster refuses a call.
    """
    for kind in (NAMESPACE_RUNTIME, CLUSTER_RUNTIME):
        runtime = _read_runtime(cluster, kind, name)
        if runtime is not None:
            if unfit := _unfitness(runtime):
                raise UserError([_unfit_runtime(name, unfit)])
            return kind
    try:
        fitting = ", ".join(runtime.name for runtime in list_runtimes(cluster) if not runtime.unfit) or "there is none"
    except ForbiddenError:
        fitting = "kubectl get trainingruntimes,clustertrainingruntimes lists them"
    raise refuse(
        "runtime",
        f"{name!r}, which is neither in namespace {cluster.namespace} nor in the whole cluster",
        f"one for torch that the cluster has: {fitting}",
        "Choose one of them, or let an administrator install torch-distributed: "
        f'kubectl apply --server-side -k "{_MANIFESTS.format("runtimes")}"',
    )


def list_runtimes(cluster: Cluster) -> list[Runtime]:
    """The runtimes that a training can name, by name; one of the namespace hides that of the cluster.

    Args:
        cluster: The cluster, with the namespace of the training.

    Raises:
        UserError: If Kubeflow Trainer is not installed, or if the cluster refuses a call.
    """
    found = {}
    for kind in (CLUSTER_RUNTIME, NAMESPACE_RUNTIME):
        for runtime in _list(cluster, kind):
            name = runtime["metadata"]["name"]
            found[name] = Runtime(name, kind, _unfitness(runtime))
    return [found[name] for name in sorted(found)]


def require_jobset(cluster: Cluster) -> list[str]:
    """The versions in which the cluster serves JobSet, which Kubeflow Trainer starts its pods with.

    Args:
        cluster: The cluster.

    Raises:
        UserError: If it serves none.
    """
    versions = _versions(cluster, JOBSET_GROUP)
    if not versions:
        raise refuse(
            "JobSet",
            "a cluster without it",
            f"one that serves {JOBSET_GROUP}",
            f"Kubeflow Trainer installs it. Let an administrator run: {_INSTALL}",
        )
    return versions


def _unfitness(runtime: dict[str, Any]) -> str:
    spec = runtime["spec"]
    if "torch" not in (spec.get("mlPolicy") or {}):
        return "its mlPolicy is not torch"
    jobs = {job["name"]: job for job in spec["template"]["spec"].get("replicatedJobs") or ()}
    if NODE not in jobs:
        return f"it has no replicated job {NODE!r}"
    template = jobs[NODE]["template"]
    labels = (template.get("metadata") or {}).get("labels") or {}
    containers = template["spec"]["template"]["spec"].get("containers") or ()
    if labels.get(_ROLE_LABEL) != "trainer" or NODE not in {container["name"] for container in containers}:
        return f"its job {NODE!r} lacks the label {_ROLE_LABEL}=trainer or the container {NODE!r}"
    if waits := [dependency["name"] for dependency in jobs[NODE].get("dependsOn") or ()]:
        return f"its job {NODE!r} waits for jobs of its own ({', '.join(waits)})"
    return ""


def _unfit_runtime(name: str, unfit: str) -> Problem:
    return Problem(
        "runtime",
        f"{name!r}, which does not fit: {unfit}",
        f"one for torch, whose only work is a replicated job {NODE!r} with a container {NODE!r}",
        "Choose torch-distributed, or the runtime kfp-finetune of this library's manifests/runtime.",
    )


def _plural(kind: str) -> str:
    return f"{kind.lower()}s"


def _read_runtime(cluster: Cluster, kind: str, name: str) -> dict[str, Any] | None:
    api = client.CustomObjectsApi(cluster.api)
    namespace = cluster.namespace if kind == NAMESPACE_RUNTIME else ""
    with api_call("get", f"{_plural(kind)}.{GROUP}", namespace):
        try:
            if namespace:
                return api.get_namespaced_custom_object(GROUP, VERSION, namespace, _plural(kind), name)
            return api.get_cluster_custom_object(GROUP, VERSION, _plural(kind), name)
        except client.ApiException as error:
            if error.status != 404:
                raise
            return None


def _list(cluster: Cluster, kind: str) -> list[dict[str, Any]]:
    api = client.CustomObjectsApi(cluster.api)
    namespace = cluster.namespace if kind == NAMESPACE_RUNTIME else ""
    with api_call("list", f"{_plural(kind)}.{GROUP}", namespace):
        try:
            if namespace:
                return api.list_namespaced_custom_object(GROUP, VERSION, namespace, _plural(kind))["items"]
            return api.list_cluster_custom_object(GROUP, VERSION, _plural(kind))["items"]
        except client.ApiException as error:
            if error.status != 404:
                raise
            raise _not_installed(cluster) from error


def _not_installed(cluster: Cluster) -> UserError:
    versions = _versions(cluster, GROUP)
    return refuse(
        "Kubeflow Trainer",
        f"a cluster that serves {GROUP} in {', '.join(versions)} only" if versions else "a cluster without it",
        f"one that serves {GROUP}/{VERSION}",
        f"Let an administrator run: {_INSTALL}",
    )


def _versions(cluster: Cluster, group: str) -> list[str]:
    return [version["version"] for version in _read(cluster, f"/apis/{group}").get("versions", ())]


def _read(cluster: Cluster, path: str) -> dict[str, Any]:
    """What an address of API discovery answers; empty if there is nothing."""
    with api_call("get", path):
        try:
            return cluster.api.call_api(
                path, "GET", auth_settings=["BearerToken"], response_type="object", _return_http_data_only=True
            )
        except client.ApiException as error:
            if error.status != 404:
                raise
            return {}
