"""Runs a training on a cluster: attempts at it, one TrainJob after the other, until it has ended well or cannot."""

from collections.abc import Callable

from kfp_finetune.cluster.client import Cluster
from kfp_finetune.cluster.trainer import trainjob_fields
from kfp_finetune.launch.process import LaunchError
from kfp_finetune.launch.trainjob.following import follow_job
from kfp_finetune.launch.trainjob.lease import find_job, hold, now, remove, sweep
from kfp_finetune.launch.trainjob.spec import JobSpec, trainjob


def run_trainjob(cluster: Cluster, spec: JobSpec, run: str, on_line: Callable[[str], None]) -> None:
    """Runs a training and waits for it.

    The TrainJob is named by the work, so that a step that starts again finds it. An attempt that failed for a reason
    that another one can mend (a lost node, an eviction, a broken connection) is followed by the next, which goes on
    from the newest checkpoint. Jobs that no step waits for are swept first.

    Args:
        cluster: Where it runs.
        spec: The training.
        run: Id of the run that holds the job.
        on_line: Called with every line of the first node's log, in order; after a restart of the step also with those
            of before.

    Raises:
        UserError: If the job cannot be made, or the cluster refuses a call.
        LaunchError: If the training failed; the message says why.
    """
    fields = trainjob_fields(cluster)
    for line in sweep(cluster):
        print(line, flush=True)
    settings = spec.settings
    for attempt in range(1, settings.max_attempts + 1):
        lease = hold(cluster, trainjob(spec, fields, run, now()), run)
        failure = follow_job(
            lease, spec.num_nodes, settings.start_timeout_minutes * 60, settings.timeout_hours * 3600, on_line
        )
        if failure is None:
            return
        job = find_job(cluster, spec.name)
        if job is not None and job["metadata"]["uid"] == lease.uid:
            remove(cluster, job)
        if not failure.retryable or attempt == settings.max_attempts:
            raise LaunchError(failure.message)
        print(
            f"attempt {attempt} of {settings.max_attempts} failed, another can mend it\n{failure.message}", flush=True
        )
