"""Runs a training on a cluster: attempts at it, one TrainJob after the other, until it has ended well or cannot."""

import time
from collections.abc import Callable

from kfp_finetune.cluster.client import Cluster, patiently
from kfp_finetune.cluster.trainer import trainjob_fields
from kfp_finetune.errors import UserError
from kfp_finetune.launch.process import LaunchError
from kfp_finetune.launch.trainjob.following import Failure, follow_job
from kfp_finetune.launch.trainjob.lease import Lease, end_attempt, hold, now, sweep
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
    fields = patiently(trainjob_fields)(cluster)
    for line in sweep(cluster, spare=spec.name):
        print(line, flush=True)
    settings = spec.settings
    end = time.monotonic() + settings.timeout_hours * 3600
    for attempt in range(1, settings.max_attempts + 1):
        left = max(1.0, end - time.monotonic())
        lease = hold(cluster, trainjob(spec, fields, run, now(), left), run)
        failure = follow_job(lease, spec.num_nodes, settings.start_timeout_minutes * 60, left, on_line)
        if failure is None:
            return
        if not failure.retryable or attempt == settings.max_attempts:
            raise LaunchError(failure.message + _tidied(lease, failure))
        print(f"attempt {attempt} of {settings.max_attempts} failed; another can mend it", flush=True)
        print(failure.message, flush=True)
        end_attempt(lease, failure.broken)


def _tidied(lease: Lease, failure: Failure) -> str:
    """Ends a failed training's job; returns what to add to its message where that could not be done."""
    try:
        end_attempt(lease, failure.broken)
    except UserError as error:
        return f"\nThe TrainJob is left, for the run's exit task to delete: {error}"
    return ""
