"""What the cluster trains with: Kubeflow Trainer, its runtimes, and the jobs that nobody waits for."""

from kfp_finetune.client.doctor.report import Check, State, judged
from kfp_finetune.cluster.client import Cluster
from kfp_finetune.cluster.trainer import (
    GROUP,
    VERSION,
    Runtime,
    find_runtime,
    list_runtimes,
    require_jobset,
    trainjob_fields,
)
from kfp_finetune.launch.trainjob.jobs import list_jobs
from kfp_finetune.launch.trainjob.lease import is_abandoned
from kfp_finetune.launch.trainjob.names import RESOURCE
from kfp_finetune.launch.trainjob.spec import PATCHES


def check_trainer(cluster: Cluster) -> Check:
    """Checks whether Kubeflow Trainer is installed in a version that is known here.

    Args:
        cluster: The cluster.
    """

    def look() -> str | Check:
        fields = trainjob_fields(cluster)
        patch = next((name for name in PATCHES if name in fields), None)
        if patch:
            return f"{GROUP}/{VERSION}, whose pods are changed by {patch}"
        return Check(
            "Kubeflow Trainer",
            State.FAIL,
            f"a TrainJob without any of {', '.join(PATCHES)}",
            "Install a version of Kubeflow Trainer that this release of kfp-finetune knows.",
        )

    return judged("Kubeflow Trainer", look)


def check_jobset(cluster: Cluster) -> Check:
    """Checks whether JobSet, which makes the pods, is installed.

    Args:
        cluster: The cluster.
    """
    return judged("JobSet", lambda: f"served in {', '.join(require_jobset(cluster))}")


def check_runtimes(cluster: Cluster, wanted: str) -> tuple[list[Runtime], list[Check]]:
    """Lists the runtimes, and checks whether the wanted one is there and fits.

    Args:
        cluster: The cluster, with the namespace of the runs.
        wanted: Name of a runtime.
    """
    found: list[Runtime] = []

    def look() -> str | Check:
        found.extend(list_runtimes(cluster))
        fitting = [runtime.name for runtime in found if not runtime.unfit]
        if fitting:
            return ", ".join(fitting)
        mend = "Let an administrator run in this library's sources: kubectl apply --server-side -k manifests/runtime"
        return Check("runtimes", State.FAIL, "none that fits a training", mend)

    listed = judged("runtimes", look)
    return found, [listed, judged(f"runtime {wanted}", lambda: f"a {find_runtime(cluster, wanted)} for torch")]


def check_jobs(cluster: Cluster) -> tuple[list[str], Check]:
    """Finds the jobs of this library whose waiting step is gone.

    Args:
        cluster: The cluster, with the namespace of the runs.
    """
    abandoned: list[str] = []

    def look() -> str | Check:
        abandoned.extend(job["metadata"]["name"] for job in list_jobs(cluster, {}) if is_abandoned(job))
        if not abandoned:
            return "none"
        command = f"kubectl -n {cluster.namespace} delete {RESOURCE} {' '.join(abandoned)}"
        mend = f"Their checkpoints stay, and the next run deletes them. To do so now: {command}"
        return Check("jobs without a step", State.WARN, ", ".join(abandoned), mend)

    return abandoned, judged("jobs without a step", look)
