"""Trackers that a training's figures also go to, through torchtune's own loggers: TensorBoard, MLflow and W&B.

Secrets never pass through settings, which lie in files and in the pipeline's parameters: the trackers read them from
the environment.
"""

import atexit
import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlsplit

from omegaconf import OmegaConf
from pydantic import Field, TypeAdapter, ValidationError

from kfp_finetune.errors import Problem
from kfp_finetune.publishing import write_atomically
from kfp_finetune.sources.retries import plain

SETTING = "metric_loggers"
RUNS_NAME = "loggers.json"
"""File of a training with the id of its run in each tracker, for a training that goes on."""

SECRET = re.compile(r"key|token|password|passwd|secret|credential", re.IGNORECASE)
MLFLOW_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
"""Where the user sets nothing else: a server that is gone costs seconds, not MLflow's many minutes."""

WANDB_TIMEOUT_SECONDS = 60.0
"""How long a training's start and its end wait for W&B; what is not sent by then stays on the volume."""

PROJECT = "kfp-finetune"
"""W&B's project where the user names none."""

Text = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True)
class Logger:
    """A tracker, and what a user can say about it.

    Args:
        component: Name of its class in `torchtune.training.metric_logging`.
        package: What it imports.
        arguments: The class's arguments that a user can set, with their types.
        secrets: Environment variables that it reads its secrets from.
    """

    component: str
    package: str
    arguments: Mapping[str, Any]
    secrets: str = "its environment variable"


LOGGERS = {
    "tensorboard": Logger("TensorBoardLogger", "tensorboard", {"log_dir": Text}),
    "mlflow": Logger(
        "MLFlowLogger",
        "mlflow",
        {"tracking_uri": Text, "experiment_name": Text, "run_name": Text},
        "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    ),
    "wandb": Logger(
        "WandBLogger",
        "wandb",
        {
            "project": Text,
            "entity": Text,
            "group": Text,
            "name": Text,
            "job_type": Text,
            "notes": Text,
            "tags": list[Text],
            "mode": Literal["online", "offline"],
            "log_dir": Text,
        },
        "WANDB_API_KEY",
    ),
}
"""The trackers by the name that a user gives them."""


def check_loggers(loggers: Mapping[str, Mapping[str, Any]]) -> list[Problem]:
    """What is wrong with the trackers that a user asked for, on a machine like the one that will train.

    Args:
        loggers: Arguments of each tracker by its name in `LOGGERS`.
    """
    problems = []
    for name, arguments in loggers.items():
        if name in LOGGERS:
            problems += _check_logger(name, arguments)
        else:
            problems.append(Problem(SETTING, repr(name), ", ".join(LOGGERS), "Correct the name or remove it."))
    return problems


def _check_logger(name: str, arguments: Mapping[str, Any]) -> list[Problem]:
    package = LOGGERS[name].package
    problems = [problem for argument, value in arguments.items() for problem in _check_argument(name, argument, value)]
    if name == "mlflow" and "tracking_uri" not in arguments and "MLFLOW_TRACKING_URI" not in os.environ:
        allowed = "a tracking_uri such as https://mlflow.example.com, or MLFLOW_TRACKING_URI in the environment"
        problems.append(Problem(f"{SETTING}.{name}", "no server", allowed, "Say where the server is."))
    if find_spec(package) is None:
        given = f"{name}, whose package {package!r} is not installed"
        mend = f'Install it where trainings run: pip install "kfp-finetune[loggers]"; or remove {name}.'
        problems.append(Problem(SETTING, given, "trackers that are installed", mend))
    return problems


def _check_argument(name: str, argument: str, value: Any) -> list[Problem]:
    what, logger = f"{SETTING}.{name}.{argument}", LOGGERS[name]
    mend = f"Remove it from the settings and give {logger.secrets} to the training's environment."
    if argument not in logger.arguments:
        if SECRET.search(argument):
            return [Problem(what, "a secret (not shown)", "no secrets, since settings are kept and shown", mend)]
        allowed = ", ".join(logger.arguments)
        return [Problem(f"{SETTING}.{name}", repr(argument), allowed, "Correct the name or remove it.")]
    try:
        TypeAdapter(logger.arguments[argument]).validate_python(value, strict=True)
    except ValidationError as error:
        allowed = error.errors()[0]["msg"].removeprefix("Input should be ")
        return [Problem(what, repr(value), allowed, f"Correct {argument} and run again.")]
    if argument == "tracking_uri" and _holds_secret(value):
        return [Problem(what, "an address with a user or secret in it (not shown)", "one without", mend)]
    return []


def _holds_secret(uri: str) -> bool:
    parts = urlsplit(uri)
    return "@" in parts.netloc or any(SECRET.search(name) for name, _ in parse_qsl(parts.query))


class OpenLoggers:
    """The trackers of a running training; one that fails is left out from then on, and the training goes on.

    Args:
        openers: By the tracker's name, what opens torchtune's logger.
    """

    def __init__(self, openers: Mapping[str, Callable[[], Any]]):
        self._open: dict[str, Any] = {}
        self._failed: list[Any] = []
        atexit.register(self._failed.clear)  # before Python takes apart what their own ends call
        for name, opener in openers.items():
            with self._leaving_out(name):
                self._open[name] = opener()

    def log_dict(self, payload: Mapping[str, float], step: int) -> None:
        """Sends the figures of a step.

        Args:
            payload: The figures by name.
            step: From 1.
        """
        for name, logger in list(self._open.items()):
            with self._leaving_out(name):
                logger.log_dict(payload, step=step)

    def close(self) -> None:
        """Ends the training's run in every tracker."""
        for name, logger in list(self._open.items()):
            with self._leaving_out(name):
                logger.close()
        self._open.clear()

    @contextlib.contextmanager
    def _leaving_out(self, name: str) -> Iterator[None]:
        """Leaves a tracker out if the body fails; it is kept until the exit, since its end calls the server again."""
        try:
            yield
        except Exception as error:
            self._failed.append(self._open.pop(name, None))
            what = f"{type(error).__name__}: {plain(error)}"
            print(f"{name} gets no more figures, the training goes on: {what}", flush=True)


def open_loggers(loggers: Mapping[str, Mapping[str, Any]], training: Path) -> OpenLoggers:
    """Opens the trackers, on the first process alone; a training that goes on continues its runs.

    Args:
        loggers: As `check_loggers` accepts them, also as OmegaConf's.
        training: The training's directory; its name is the runs' name by default.
    """
    plain: Any = OmegaConf.to_container(OmegaConf.create(dict(loggers)))
    openers = {"tensorboard": _open_tensorboard, "mlflow": _open_mlflow, "wandb": _open_wandb}
    return OpenLoggers({name: partial(openers[name], arguments, training) for name, arguments in plain.items()})


def _open_tensorboard(arguments: Mapping[str, Any], training: Path) -> Any:
    from torchtune.training.metric_logging import TensorBoardLogger

    folder = Path(arguments["log_dir"]) / training.name if "log_dir" in arguments else training / "tensorboard"
    return TensorBoardLogger(str(folder), organize_logs=False)


def _open_mlflow(arguments: Mapping[str, Any], training: Path) -> Any:
    for name, value in MLFLOW_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow
    from torchtune.training.metric_logging import MLFlowLogger

    if "tracking_uri" in arguments:  # torchtune's logger lets MLFLOW_TRACKING_URI win
        mlflow.set_tracking_uri(arguments["tracking_uri"])
    run_id = _read_runs(training).get("mlflow", "")
    if _is_run(run_id):  # torchtune's logger does not hand its argument run_id to MLflow
        os.environ.setdefault("MLFLOW_RUN_ID", run_id)
    logger = MLFlowLogger(**{"run_name": training.name, **arguments})
    _write_run(training, "mlflow", logger._run_id)
    atexit.register(_fail_mlflow)
    return logger


def _is_run(run_id: str) -> bool:
    import mlflow

    with contextlib.suppress(mlflow.MlflowException):
        return bool(run_id) and mlflow.get_run(run_id).info.lifecycle_stage == "active"
    return False


def _fail_mlflow() -> None:
    """Marks a run as failed that is still open when the process ends: MLflow would call it finished."""
    import mlflow

    with contextlib.suppress(Exception):
        mlflow.end_run("FAILED")


def _open_wandb(arguments: Mapping[str, Any], training: Path) -> Any:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb
    from torchtune.training.metric_logging import WandBLogger

    defaults = {"project": PROJECT, "log_dir": str(training), "name": training.name, "resume": "allow"}
    timeouts = {"init_timeout": WANDB_TIMEOUT_SECONDS, "finish_timeout": WANDB_TIMEOUT_SECONDS}
    run_id = _read_runs(training).get("wandb")
    logger = WandBLogger(**{**defaults, "id": run_id, "settings": timeouts, **arguments})
    assert wandb.run is not None
    _write_run(training, "wandb", wandb.run.id)
    return logger


def _read_runs(training: Path) -> dict[str, str]:
    path = training / RUNS_NAME
    return json.loads(path.read_text()) if path.exists() else {}


def _write_run(training: Path, name: str, run_id: str) -> None:
    write_atomically(training / RUNS_NAME, json.dumps(_read_runs(training) | {name: run_id}, indent=2))
