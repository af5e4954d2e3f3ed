"""Runs on the server: start one, look at it, stop it."""

import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import kfp_server_api

from kfp_finetune.client.server.calls import PATIENCE_SECONDS, NotFoundError, ask, make, once
from kfp_finetune.client.server.connection import Server
from kfp_finetune.client.server.lists import listed, named
from kfp_finetune.client.server.tasks import ENDED, ENDED_BADLY
from kfp_finetune.client.server.uploads import Version
from kfp_finetune.errors import UserError, refuse

DEFAULT_EXPERIMENT = "Default"
STOPPING = "CANCELING"
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Submitted:
    """A run that the server has accepted.

    Args:
        run_id: Its id.
        name: Its name.
        page: Address of its page.
    """

    run_id: str
    name: str
    page: str


def submit(
    server: Server,
    version: Version,
    arguments: Mapping[str, Any],
    *,
    experiment: str = DEFAULT_EXPERIMENT,
    name: str = "",
    service_account: str = "",
) -> Submitted:
    """Starts a run of an uploaded pipeline.

    Args:
        server: Kubeflow Pipelines.
        version: Of the pipeline.
        arguments: The run's parameters, by name.
        experiment: Groups runs in the UI; made if it is not there.
        name: The beginning of the run's name, before the time; empty for the experiment's name.
        service_account: As whom the steps run; empty for the server's default.

    Raises:
        UserError: If the server refuses it.
    """
    # A name of its own, by which the run is found if the server's answer is lost.
    name = f"{name or experiment} {time.strftime('%Y-%m-%d %H:%M')} {uuid.uuid4().hex[:5]}"
    body = kfp_server_api.V2beta1Run(
        experiment_id=experiment_id(server, experiment),
        display_name=name,
        pipeline_version_reference=reference(version),
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=dict(arguments)),
        service_account=service_account or None,
    )
    create = partial(once, "start the run", server.runs.run_service_create_run, body)
    run_id = make(create, partial(_find, server, name)).run_id
    return Submitted(run_id, name, run_page(server, run_id))


def reference(version: Version) -> kfp_server_api.V2beta1PipelineVersionReference:
    """A pipeline's version, as runs name it.

    Args:
        version: The version.
    """
    return kfp_server_api.V2beta1PipelineVersionReference(
        pipeline_id=version.pipeline_id, pipeline_version_id=version.version_id
    )


def run_page(server: Server, run_id: str) -> str:
    """Address of a run's page.

    Args:
        server: Kubeflow Pipelines.
        run_id: The run.
    """
    return server.page(f"/runs/details/{run_id}")


def experiment_id(server: Server, name: str) -> str:
    """The id of an experiment, which is made if it is not there.

    Args:
        server: Kubeflow Pipelines.
        name: Its name.
    """
    find = partial(_find_experiment, server, name)
    call = server.experiments.experiment_service_create_experiment
    body = kfp_server_api.V2beta1Experiment(display_name=name, namespace=server.namespace)
    return str((find() or make(partial(once, "make the experiment", call, body), find)).experiment_id)


def _find_experiment(server: Server, name: str) -> kfp_server_api.V2beta1Experiment | None:
    call = server.experiments.experiment_service_list_experiments
    found = listed("list the experiments", call, "experiments", filter=named(name), namespace=server.namespace)
    return next(found, None)


def get_run(server: Server, run_id: str, patience: float = PATIENCE_SECONDS) -> kfp_server_api.V2beta1Run:
    """A run as the server sees it now.

    Args:
        server: Kubeflow Pipelines.
        run_id: Its id.
        patience: Seconds for which to ask again while the server does not answer.
    """
    return ask("read the run", server.runs.run_service_get_run, run_id, patience=patience)


def find_run(server: Server, text: str) -> str:
    """The id of a run.

    Args:
        server: Kubeflow Pipelines.
        text: Its id or its name.

    Raises:
        UserError: If there is none.
    """
    with suppress(NotFoundError):
        if ID.fullmatch(text):
            return str(get_run(server, text).run_id)
    found = _find(server, text)
    if found is None:
        mend = "Take the id from the run's page, or from what submit printed."
        raise refuse("run", repr(text), "the id or the name of a run on this server", mend)
    return str(found.run_id)


def runs_of(server: Server, name: str = "") -> Iterator[kfp_server_api.V2beta1Run]:
    """The runs on the server, the newest first.

    Args:
        server: Kubeflow Pipelines.
        name: Only those of this name; empty for all.
    """
    call = server.runs.run_service_list_runs
    filtered = named(name) if name else ""
    return listed("list the runs", call, "runs", filter=filtered, namespace=server.namespace)


def _find(server: Server, name: str) -> kfp_server_api.V2beta1Run | None:
    return next(runs_of(server, name), None)


def stop(server: Server, run_id: str) -> None:
    """Ends a run; its exit task still runs, and so nothing of it stays behind.

    Args:
        server: Kubeflow Pipelines.
        run_id: Its id.

    Raises:
        UserError: If it has ended already.
    """
    state = get_run(server, run_id).state
    if state in ENDED:
        raise refuse("run", f"{run_id}, which has ended as {state}", "a run that is under way", "See its page.")
    if state == STOPPING:
        return
    try:
        ask("stop the run", server.runs.run_service_terminate_run, run_id)
    except UserError:
        if get_run(server, run_id).state not in {STOPPING, *ENDED_BADLY}:  # an answer may have been lost before
            raise
