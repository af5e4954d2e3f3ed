"""What can be wrong with a run's values, found before anything is sent, by the checks of the steps themselves."""

from collections.abc import Mapping
from typing import Any

from kfp_finetune.components.initialize_model.start import STARTS
from kfp_finetune.components.torchtune_train.launcher import check_place
from kfp_finetune.components.torchtune_train.settings import check_values
from kfp_finetune.errors import Problem, UserError
from kfp_finetune.launch.trainjob.settings import read_job_settings
from kfp_finetune.workspace import MOUNT_PATH, check_series_name

NAMES_OF_OBJECTS = ("volume", "hf_secret", "s3_secret", "train_image")
"""Parameters of which an empty one makes a run of Kubeflow Pipelines fail before its first step."""


def check_local(values: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the values of a run on this machine.

    Args:
        values: Those that were given, by name.
    """
    launcher, workspace = values.get("launcher", "process"), values.get("workspace", MOUNT_PATH)
    problems = [*check_values(values), *check_place(launcher, values.get("num_nodes", 1), workspace)]
    if values.get("start_from", STARTS[0]) not in STARTS:
        allowed = " or ".join(map(repr, STARTS))
        problems.append(Problem("start_from", repr(values["start_from"]), allowed, "Correct start_from."))
    try:
        check_series_name(values.get("name", "finetune"))
    except UserError as error:
        problems += error.problems
    return problems


def check_remote(values: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the values of a run on a server, as far as it can be told from here.

    Args:
        values: Those that were given, by name.
    """
    problems = check_local(values)
    problems += read_job_settings(values.get("trainjob", {}))[1]
    problems += [
        Problem(name, "''", "a name; the object need not exist", "Leave the parameter out for its default.")
        for name in NAMES_OF_OBJECTS
        if values.get(name) == ""
    ]
    return problems
