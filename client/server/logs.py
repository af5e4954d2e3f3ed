"""What the steps of a run print, as far as Kubeflow Pipelines hands it out."""

from contextlib import suppress

from kfp_finetune.client.server.calls import ask
from kfp_finetune.client.server.connection import Server, get_text
from kfp_finetune.client.server.tasks import Step
from kfp_finetune.errors import UserError


def read_log(server: Server, run_id: str, step: Step) -> list[str] | None:
    """All whole lines that a step has printed so far.

    The server gives the log of a pod, and once that is gone an archived one, if it keeps them: the API under
    /apis/v1alpha1, which the UI does not pass on, and the UI in a way of its own.

    Args:
        server: Kubeflow Pipelines.
        run_id: The run.
        step: The step.

    Returns:
        The lines without their ends; None if the server has no log of the step, or does not hand it out.
    """
    of_the_ui = {"podname": step.pod, "runid": run_id, "podnamespace": server.namespace}
    places: list[tuple[str, dict[str, str]]] = [
        ("/k8s/pod/logs", {name: value for name, value in of_the_ui.items() if value}),
        (f"/apis/v1alpha1/runs/{run_id}/nodes/{step.pod}/log", {}),
        (f"/apis/v1alpha1/runs/{run_id}/nodes/{step.node}/log", {}),
    ]
    for path, query in places:
        # Not again and again: a server error is also what it says of a pod that is gone.
        with suppress(UserError):
            text = ask("read a step's log", get_text, server.api, path, query, patience=0)
            *lines, rest = text.split("\n")
            return [*lines, rest] if step.ended and rest else lines
    return None
