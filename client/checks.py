"""What can be wrong with a run's values, found before anything is sent, by the checks of the steps themselves."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kfp_finetune.components.initialize_model.start import STARTS
from kfp_finetune.components.torchtune_train.settings import TrainSettings, check_values, unfold_advanced
from kfp_finetune.errors import Problem, UserError
from kfp_finetune.launch.trainjob.settings import read_job_settings
from kfp_finetune.settings import read_settings
from kfp_finetune.sources.hub_address import is_hub_name
from kfp_finetune.sources.local import LocalSource
from kfp_finetune.sources.patterns import Patterns
from kfp_finetune.sources.redaction import TOKEN, redact
from kfp_finetune.sources.source import open_source
from kfp_finetune.training.launcher import check_place
from kfp_finetune.workspace import MOUNT_PATH, check_series_name

SOURCES = ("model", "dataset")
VOLUME = {"volume": "name", "volume_size": "size", "access_mode": "access_mode", "storage_class": "storage_class"}
"""Parameters that describe the volume, and what `create_volume` calls them."""

FOR_ONE_NODE = ("ReadWriteOnce", "ReadWriteOncePod")
OBJECTS = {"hf_secret": "Secret", "s3_secret": "Secret", "runtime": "training runtime"}
"""Parameters that name an object of the cluster, and its kind; an empty Secret's ends a run before its first step."""

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_HOST = r"([A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*|\[[A-Fa-f0-9:]+\])(:\d+)?"
_PART = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
_TAG = r"(:\w[\w.-]{0,127})?(@[a-z0-9+._-]+:[A-Fa-f0-9]{32,})?"
_IMAGE = re.compile(rf"({_HOST}/)?{_PART}(/{_PART})*{_TAG}", re.ASCII)
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{30,}")

_NO_TEXT = {"num_nodes": int, "keep_runs": int, "create_volume": bool, "prepare_volume": bool}
_TEXT = (*SOURCES, "dataset_config", "name", "workspace", "train_image", *VOLUME, *OBJECTS)
KINDS: Mapping[str, type] = _NO_TEXT | dict.fromkeys(_TEXT, str)
"""Types of what is looked at here; a pipeline of the user's own may mean something else by the name."""


def check_local(values: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the values of a run on this machine.

    Args:
        values: Those that were given, by name.
    """
    values = _of_our_kinds(values)
    addresses = {what: str(values[what]) for what in SOURCES if values.get(what)}
    return [*_check_training(values, same_machine=True), *_check_addresses(values, addresses, on_volume=False)]


def check_remote(values: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the values of a run on a server, as far as it can be told from here.

    Args:
        values: Those that were given, by name.
    """
    values = _of_our_kinds(values)
    # What lies on this machine says nothing about the server, where such a name is the Hub's.
    addresses = {
        what: f"hf://{values[what]}" if is_hub_name(values[what]) else str(values[what])
        for what in SOURCES
        if values.get(what)
    }
    elsewhere = {name: value for name, value in values.items() if name != "workspace"}
    return [
        *_check_training(elsewhere, same_machine=False),
        *_check_addresses(values, addresses, on_volume=True),
        *read_job_settings(values.get("trainjob", {}))[1],
        *_check_workspace(values),
        *_check_volume(values),
        *_check_objects(values),
        *_check_image(values),
    ]


def _of_our_kinds(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if isinstance(value, KINDS.get(name, object))}


def _check_training(values: Mapping[str, Any], same_machine: bool) -> list[Problem]:
    """What is wrong with what is trained and how, wherever that is.

    Args:
        values: Those that were given, by name.
        same_machine: Whether it is this one that trains, so that its packages and environment are those that count.
    """
    launcher, workspace = values.get("launcher", "process"), values.get("workspace", MOUNT_PATH)
    place = check_place(launcher, values.get("num_nodes", 1), workspace)
    if not place and not Path(workspace).is_absolute():
        place = [Problem("workspace", repr(workspace), "an absolute path", "Give the folder's absolute path.")]
    problems = [*check_values(values), *_check_together(values, same_machine), *place]
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


def _check_together(values: Mapping[str, Any], same_machine: bool) -> list[Problem]:
    """What is wrong with settings of which each is allowed; those that are not count as not given."""
    train = _read_train(values) if values.keys() & {"advanced", "overrides"} else None
    if train is None:
        return []
    from kfp_finetune.components.torchtune_train.check import check_alone
    from kfp_finetune.components.torchtune_train.loggers import LOGGERS, check_loggers

    problems = check_alone(train)
    if not same_machine:
        of_this_machine = check_loggers({name: {} for name in train.metric_loggers if name in LOGGERS})
        problems = [problem for problem in problems if problem not in of_this_machine]
    return problems + _check_overrides(train.overrides)


def _read_train(values: Mapping[str, Any]) -> TrainSettings | None:
    known = TrainSettings.__dataclass_fields__.keys()
    settings = {name: value for name, value in unfold_advanced(values)[0].items() if name in known}
    train, problems = read_settings(TrainSettings, settings)
    wrong = {problem.what.partition(".")[0] for problem in problems}
    if not wrong or "method" in wrong:
        return train
    return read_settings(TrainSettings, {name: value for name, value in settings.items() if name not in wrong})[0]


def _check_overrides(overrides: Mapping[str, Any]) -> list[Problem]:
    """What can be told without torch: the arguments of an optimizer, a scheduler or a loss are left to the step."""
    from kfp_finetune.components.torchtune_train.overrides import SECTIONS, check_overrides, nest

    sections = {key: {"_component_": names[0]} for key, names in SECTIONS.items()}
    for_torch = {
        key
        for key, value in nest(overrides).items()
        if key in SECTIONS and isinstance(value, Mapping) and {**sections[key], **value}["_component_"] in SECTIONS[key]
    }
    return check_overrides(sections, {key: value for key, value in nest(overrides).items() if key not in for_torch})


def _check_addresses(values: Mapping[str, Any], addresses: Mapping[str, str], on_volume: bool) -> list[Problem]:
    problems = []
    for what, uri in addresses.items():
        config = values.get("dataset_config", "") if what == "dataset" else ""
        problems += _check_address(what, uri, config, on_volume)
    return problems


def _check_address(what: str, uri: str, config: str, on_volume: bool) -> list[Problem]:
    if _holds_secret(uri):
        allowed = "an address without a user, a password or a token: it is kept and shown with the run"
        mend = "Put them into the Secret that hf_secret or s3_secret names; for a wildcard write * and not ?."
        return [Problem(what, f"{redact(uri)} with a secret in it (not shown)", allowed, mend)]
    try:
        source = open_source(what, uri, Patterns(), config=config)
    except UserError as error:
        return [
            replace(problem, what="dataset_config" if problem.what == "config" else problem.what)
            for problem in error.problems
        ]
    if on_volume and isinstance(source, LocalSource) and not source.root.is_absolute():
        allowed = f"hf://ORGANISATION/NAME, s3://BUCKET/PREFIX, or an absolute path such as {MOUNT_PATH}/data"
        mend = "The steps see nothing of this machine: put the files on the volume, on the Hub or in S3."
        return [Problem(what, f"{redact(repr(uri))}, a relative path and no name on the Hub", allowed, mend)]
    return []


def _holds_secret(uri: str) -> bool:
    plain = TOKEN.sub("", uri)
    return redact(plain) != plain or bool(_HUB_TOKEN.search(uri))


def _check_workspace(values: Mapping[str, Any]) -> list[Problem]:
    workspace = values.get("workspace", MOUNT_PATH)
    if workspace == MOUNT_PATH:
        return []
    return [Problem("workspace", repr(workspace), f"{MOUNT_PATH}, where the volume is mounted", "Leave it out.")]


def _check_volume(values: Mapping[str, Any]) -> list[Problem]:
    given = {VOLUME[name]: values[name] for name in VOLUME if name in values}
    problems = _check_nodes(values)
    if not given:
        return problems
    from kfp_finetune.components.create_volume.spec import VolumeSpec, check_spec

    if not (values.get("create_volume", True) or values.get("prepare_volume", False)):
        given = {name: value for name, value in given.items() if name == "name"}
    if "access_mode" in given:
        given["access_modes"] = (given.pop("access_mode"),)
    try:
        check_spec(VolumeSpec(**{"name": "volume", **given}))
    except UserError as error:
        ours = {theirs: name for name, theirs in VOLUME.items()}
        problems += [replace(problem, what=ours[problem.what]) for problem in error.problems]
    return problems


def _check_nodes(values: Mapping[str, Any]) -> list[Problem]:
    nodes, mode = values.get("num_nodes", 1), values.get("access_mode", FOR_ONE_NODE[0])
    by_trainjob = values.get("launcher") == "trainjob" and values.get("create_volume", True)
    if not by_trainjob or nodes < 2 or mode not in FOR_ONE_NODE:
        return []
    mend = "Set access_mode to ReadWriteMany, or create_volume to false for a volume of your own."
    return [Problem("access_mode", f"{mode}, with {nodes} nodes", "ReadWriteMany for more than one node", mend)]


def _check_objects(values: Mapping[str, Any]) -> list[Problem]:
    return [
        Problem(
            name,
            repr(values[name]),
            f"the name of a {kind}: at most 253 of a-z, 0-9, '-' and '.', with letters or digits around each '.'"
            + ("; it need not exist" if kind == "Secret" else ""),
            "Correct the name, or leave the parameter out for its default.",
        )
        for name, kind in OBJECTS.items()
        if name in values and not (len(values[name]) <= 253 and _SUBDOMAIN.fullmatch(values[name]))
    ]


def _check_image(values: Mapping[str, Any]) -> list[Problem]:
    image = values.get("train_image")
    if image is None or _IMAGE.fullmatch(image):
        return []
    mend = "Correct the name, or leave the parameter out for its default."
    return [Problem("train_image", repr(image), "an image such as registry.example.com/team/name:tag", mend)]
