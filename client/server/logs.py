"""What the steps of a run print, as far as Kubeflow Pipelines hands it out."""

import kfp_server_api

from kfp_finetune.client.server.calls import ask
from kfp_finetune.client.server.connection import Server
from kfp_finetune.client.server.tasks import Step
from kfp_finetune.errors import UserError


def read_log(server: Server, run_id: str, step: Step) -> list[str] | None:
    """All whole lines that a step has printed so far.

    The server gives the log of a pod, and once that is gone an archived one, if it keeps them.

    Args:
        server: Kubeflow Pipelines.
        run_id: The run.
        step: The step.

    Returns:
        The lines without their ends; None if the server has no log of the step, or does not hand it out.
    """
    for name in step.pod, step.node:
        try:
            # Not again and again: a server error is also what it says of a pod that is gone.
            text = ask("read a step's log", _get, server.api, run_id, name, patience=0)
        except UserError:
            continue
        *lines, rest = text.split("\n")
        return [*lines, rest] if step.ended and rest else lines
    return None


def _get(api: kfp_server_api.ApiClient, run_id: str, name: str) -> str:
    # kfp_server_api has no method for it, since the server's description leaves it out.
    answer = api.call_api(
        "/apis/v1alpha1/runs/{run_id}/nodes/{name}/log",
        "GET",
        path_params={"run_id": run_id, "name": name},
        auth_settings=["Bearer"],
        _preload_content=False,
        _return_http_data_only=True,
    )
    return answer.data.decode(errors="replace")
