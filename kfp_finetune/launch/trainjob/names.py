"""Names that the cluster knows a training by."""

PLURAL = "trainjobs"
RESOURCE = "trainjobs.trainer.kubeflow.org"

HEARTBEAT_PREFIX = "heartbeat.kfp-finetune.io/"
"""Prefix of the annotations with the time at which a run's step last said that it waits, RFC 3339 in UTC; the rest is
the run's id."""

VOLUME = "kfp-finetune.io/volume"
"""Annotation with the claim on which a job trains."""

SPEC_HASH = "kfp-finetune.io/spec"
"""Annotation with a hash of what was asked for, so that the same is found again and another is told apart."""

RUN_PREFIX = "run.kfp-finetune.io/"
"""Prefix of the labels that say which runs hold a job; the rest is the run's id."""

LOG_PREFIX = "log.kfp-finetune.io/"
"""Prefix of the annotations that say up to where a run has printed the job's log; the rest is the run's id."""

JOBSET_LABEL = "jobset.sigs.k8s.io/jobset-name"
"""Label of the pods, which JobSet sets."""

NODE_LABEL = "batch.kubernetes.io/job-completion-index"
"""Label of the pods with the node's number, which the Job controller sets."""


def job_name(key: str) -> str:
    """The TrainJob of a training.

    Args:
        key: The training's.
    """
    return f"finetune-{key}"
