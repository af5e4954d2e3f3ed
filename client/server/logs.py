"""What the steps of a run print, as far as Kubeflow Pipelines hands it out."""

from contextlib import suppress

import kfp_server_api

from kfp_finetune.client.server.api import get_text
from kfp_finetune.client.server.calls import AwayError, LoginError, NotFoundError, ask
from kfp_finetune.client.server.connection import Server
from kfp_finetune.client.server.tasks import Step


def read_log(server: Server, run: kfp_server_api.V2beta1Run, step: Step) -> list[str] | None:
    """All whole lines that a step has printed so far.

    The server gives the log of a pod, and once that is gone an archived one, if it keeps them: the UI in a way of its
    own, and the API under /apis/v1alpha1, which the UI does not pass on.

    Args:
        server: Kubeflow Pipelines.
        run: The run.
        step: The step.

    Returns:
        The lines without their ends; None if the server has no log of the step.

    Raises:
        UserError: If it does not hand out logs to this account.
    """
    of_the_ui = {
        "podname": step.pod,
        "runid": run.run_id,
        "podnamespace": server.namespace,
        "createdat": str(run.created_at)[:10],  # archives may be sorted by day
    }
    of_the_api = f"/apis/v1alpha1/runs/{run.run_id}/nodes"
    places: list[tuple[str, str, dict[str, str]]] = [
        (server.ui_host, "/k8s/pod/logs", of_the_ui),
        (server.host, f"{of_the_api}/{step.pod}/log", {}),
        (server.host, f"{of_the_api}/{step.node}/log", {}),
    ]
    for host, path, query in places:
        # Not again and again: a server error is also what it says of a pod that is gone.
        with suppress(AwayError, LoginError, NotFoundError):
            text = ask("read a step's log", get_text, server.api, host, path, query, patience=0)
            *lines, rest = text.split("\n")
            return [*lines, rest] if step.ended and rest else lines
    return None
