"""From what a person gives to a run on the server: everything is checked before anything is sent."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kfp_finetune.client.checks.values import check_remote
from kfp_finetune.client.given import read_given
from kfp_finetune.client.packages import find_package
from kfp_finetune.client.parameters import read_pipeline
from kfp_finetune.client.server.connection import Server
from kfp_finetune.client.server.runs import DEFAULT_EXPERIMENT, Submitted, submit
from kfp_finetune.client.server.uploads import upload
from kfp_finetune.components.export_model.this_run import WHAT as UI_HOST
from kfp_finetune.components.export_model.this_run import check_ui_host

OF_THIS_MACHINE_OR_CLUSTER = re.compile(r"(.*\.)?localhost|.*\.svc(\.cluster\.local)?")
"""Hosts that no other machine, or no browser, finds."""


@dataclass(frozen=True)
class Prepared:
    """A run that may be sent.

    Args:
        package: The compiled pipeline.yaml.
        arguments: The values that were given, by name.
        series: The series that the run belongs to; empty for a pipeline without one.
        takes_ui_host: Whether the pipeline has a parameter for the UI's address, and it was not given.
    """

    package: Path
    arguments: Mapping[str, Any]
    series: str
    takes_ui_host: bool = False

    def arguments_for(self, server: Server) -> Mapping[str, Any]:
        """The values to send, with the UI's address if the pipeline takes it and others can open it.

        Args:
            server: Kubeflow Pipelines.
        """
        if not self.takes_ui_host or not is_for_others(server.ui_host):
            return self.arguments
        return {**self.arguments, UI_HOST: server.ui_host}


def is_for_others(ui_host: str) -> bool:
    """Whether an address of the UI may lead people there on other machines than this one, and holds no secret.

    Args:
        ui_host: The address.
    """
    host = urlsplit(ui_host).hostname or "" if not check_ui_host(ui_host) else ""
    try:
        return not (ip_address(host).is_loopback or ip_address(host).is_unspecified)
    except ValueError:
        return bool(host) and not OF_THIS_MACHINE_OR_CLUSTER.fullmatch(host)


def prepare(pipeline: str, values: Mapping[str, Any], assignments: Sequence[str] = (), series: str = "") -> Prepared:
    """Reads and checks what a run is given.

    Args:
        pipeline: A path to a compiled pipeline, or the name of one of this library.
        values: Parameters by name.
        assignments: More of them as NAME=VALUE, which go before the others.
        series: The series, unless the parameters name another.

    Raises:
        UserError: With everything that is wrong.
    """
    package = find_package(pipeline)
    compiled = read_pipeline(package)
    parameters, check = compiled.parameters, partial(check_remote, pipeline=compiled.name)
    has_series = "name" in parameters
    given = {"name": series, **values} if series and has_series else values
    arguments = read_given(parameters, given, assignments, check)
    name = str(arguments.get("name", parameters["name"].default)) if has_series else ""
    return Prepared(package, arguments, name, takes_ui_host=UI_HOST in parameters and UI_HOST not in arguments)


def start(
    server: Server, prepared: Prepared, *, experiment: str = "", name: str = "", service_account: str = ""
) -> Submitted:
    """Uploads the pipeline unless it is there, and starts a run of it.

    Args:
        server: Kubeflow Pipelines.
        prepared: The run.
        experiment: Groups runs in the UI; empty for the series' name.
        name: Beginning of the run's name; empty for the experiment's.
        service_account: As whom the steps run; empty for the server's default.

    Raises:
        UserError: If the server refuses it.
    """
    version = upload(server, prepared.package)
    experiment = experiment or prepared.series or DEFAULT_EXPERIMENT
    return submit(
        server,
        version,
        prepared.arguments_for(server),
        experiment=experiment,
        name=name,
        service_account=service_account,
    )
