"""What a run that has ended, in whatever way, still holds in the cluster."""

from kfp_finetune.cluster.client import connect
from kfp_finetune.launch.trainjob.lease import release, sweep


def stop_trainings(run: str, launcher: str) -> None:
    """Gives up the TrainJobs of a run, and sweeps those that no step waits for any more.

    Args:
        run: Id of the run.
        launcher: No call is made unless it is "trainjob".

    Raises:
        UserError: If the cluster refuses a call.
    """
    if launcher != "trainjob":
        return
    cluster = connect()
    for line in [*release(cluster, run), *sweep(cluster)]:
        print(line, flush=True)
