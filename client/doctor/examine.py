"""Looks at everything in a cluster that the pipelines need."""

from collections.abc import Sequence
from dataclasses import dataclass

from kfp_finetune.client.doctor.access import check_access, check_secret
from kfp_finetune.client.doctor.kfp import check_kfp
from kfp_finetune.client.doctor.report import Report, State
from kfp_finetune.client.doctor.resources import check_gpus, check_storage
from kfp_finetune.client.doctor.training import check_jobs, check_jobset, check_runtimes, check_trainer
from kfp_finetune.client.server.connection import Address
from kfp_finetune.cluster.client import Cluster
from kfp_finetune.cluster.trainer import Runtime


@dataclass(frozen=True)
class Question:
    """What is asked of a cluster beside what every pipeline needs.

    Args:
        runtime: Name of the runtime that trainings shall use.
        secrets: Names of Secrets that must exist.
        gpu: Kubernetes resource name of the GPUs that some node must have; None only looks for NVIDIA's.
        kfp: Where Kubeflow Pipelines is; None to leave it out.
    """

    runtime: str
    secrets: Sequence[str] = ()
    gpu: str | None = None
    kfp: Address | None = None


def examine(cluster: Cluster, question: Question) -> Report:
    """Looks at everything as the account at hand; nothing is changed.

    Args:
        cluster: The cluster, with the namespace of the runs.
        question: What else to look for.

    Raises:
        UserError: If the API server cannot be reached or rejects the credentials.
    """
    checks = list(check_access(cluster))
    runtimes: list[Runtime] = []
    abandoned: list[str] = []
    trainer = check_trainer(cluster)
    checks.append(trainer)
    if trainer.state != State.FAIL:
        checks.append(check_jobset(cluster))
        runtimes, runtime_checks = check_runtimes(cluster, question.runtime)
        abandoned, jobs = check_jobs(cluster)
        checks += [*runtime_checks, jobs]
    classes, storage = check_storage(cluster)
    checks += [storage, *(check_secret(cluster, name) for name in question.secrets), check_gpus(cluster, question.gpu)]
    if question.kfp:
        checks.append(check_kfp(question.kfp))
    return Report(checks, runtimes, classes, abandoned)
