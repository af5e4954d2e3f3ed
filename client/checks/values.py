"""All of a run's values: what every pipeline has, and what is peculiar to how it trains."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfp_finetune.client.checks import distillation, preferences, sweep, torchtune, transformers
from kfp_finetune.client.checks.addresses import SOURCES, check_addresses
from kfp_finetune.client.checks.cluster import OBJECTS, VOLUME, check_cluster
from kfp_finetune.client.checks.trainer import Trainer
from kfp_finetune.components.export_model.publish.targets import check_targets
from kfp_finetune.components.export_model.this_run import check_ui_host
from kfp_finetune.components.initialize_model.start import STARTS
from kfp_finetune.components.sweep.search import WHAT as SEARCH
from kfp_finetune.errors import Problem, UserError
from kfp_finetune.launch.trainjob.settings import read_job_settings
from kfp_finetune.settings import whole_numbers
from kfp_finetune.training.launcher import check_place
from kfp_finetune.workspace import MOUNT_PATH, check_series_name

TRAINERS = {
    "torchtune-finetune": torchtune.TRAINER,
    "preference-tuning": preferences.TRAINER,
    "distillation": distillation.TRAINER,
    "transformers-finetune": transformers.TRAINER,
    "sweep": sweep.TRAINER,
}
"""How each pipeline of this library trains, by the pipeline's name."""

_COUNTS = ("num_nodes", "num_workers", "num_procs_per_worker", "keep_runs", "samples", "search_seed")
_OWN_TEXT = ("dataset_config", "publish_to", "ui_host", "name", "workspace", "train_image", "metric", "direction")
_TEXT = (*SOURCES, *_OWN_TEXT, *VOLUME, *OBJECTS)
KINDS: Mapping[str, type] = (
    dict.fromkeys(_COUNTS, int)
    | dict.fromkeys(("create_volume", "prepare_volume"), bool)
    | dict.fromkeys(_TEXT, str)
    | dict.fromkeys((transformers.WHAT, SEARCH), dict)
)
"""Types of what is looked at here; a pipeline of the user's own may mean something else by the name."""


def check_local(values: Mapping[str, Any], pipeline: str) -> list[Problem]:
    """What is wrong with the values of a run on this machine.

    Args:
        values: Those that were given, by name.
        pipeline: The compiled pipeline's name.
    """
    trainer, values = _trainer(values, pipeline), _of_our_kinds(values)
    return [*_check_training(values, trainer, same_machine=True), *check_addresses(values, same_machine=True)]


def check_remote(values: Mapping[str, Any], pipeline: str) -> list[Problem]:
    """What is wrong with the values of a run on a server, as far as it can be told from here.

    Args:
        values: Those that were given, by name.
        pipeline: The compiled pipeline's name.
    """
    trainer, values = _trainer(values, pipeline), _of_our_kinds(values)
    elsewhere = {name: value for name, value in values.items() if name != "workspace"}
    return [
        *_check_training(elsewhere, trainer, same_machine=False),
        *check_addresses(values, same_machine=False),
        *read_job_settings(values.get("trainjob", {}))[1],
        *check_cluster(values, trainer.nodes),
    ]


def _trainer(values: Mapping[str, Any], pipeline: str) -> Trainer:
    """How a pipeline trains; one of the user's own is taken for one made of the steps whose parameters it has."""
    of_steps = {
        preferences.BETA: preferences.TRAINER,
        distillation.RATIO: distillation.TRAINER,
        transformers.TYPE: transformers.TRAINER,
        SEARCH: sweep.TRAINER,
    }
    own = next((trainer for name, trainer in of_steps.items() if name in values), torchtune.TRAINER)
    return TRAINERS.get(pipeline, own)


def _of_our_kinds(values: Mapping[str, Any]) -> dict[str, Any]:
    values = whole_numbers(values)
    return {name: value for name, value in values.items() if isinstance(value, KINDS.get(name, object))}


def _check_training(values: Mapping[str, Any], trainer: Trainer, same_machine: bool) -> list[Problem]:
    launcher, workspace = values.get("launcher", "process"), values.get("workspace", MOUNT_PATH)
    place = check_place(launcher, values.get(trainer.nodes, 1), workspace, trainer.nodes)
    if not place and not Path(workspace).is_absolute():
        place = [Problem("workspace", repr(workspace), "an absolute path", "Give the folder's absolute path.")]
    places = check_targets(values.get("publish_to", ""), on_volume=not same_machine)
    problems = [*trainer.check(values, same_machine), *places, *check_ui_host(values.get("ui_host", "")), *place]
    if values.get("start_from", STARTS[0]) not in STARTS:
        allowed = " or ".join(map(repr, STARTS))
        problems.append(Problem("start_from", repr(values["start_from"]), allowed, "Correct start_from."))
    if values.get("keep_runs", 0) < 0:
        allowed = "0 for all, or how many are to be kept"
        problems.append(Problem("keep_runs", str(values["keep_runs"]), allowed, "Correct keep_runs."))
    try:
        check_series_name(values.get("name", "finetune"))
    except UserError as error:
        problems += error.problems
    return problems
