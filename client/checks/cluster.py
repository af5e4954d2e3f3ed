"""What a run on a server names of its cluster: the volume, Secrets, a runtime, an image."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kfp_finetune.errors import Problem, UserError
from kfp_finetune.workspace import MOUNT_PATH

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


def check_cluster(values: Mapping[str, Any], nodes: str) -> list[Problem]:
    """What is wrong with what is named of the cluster, as far as it can be told from here.

    Args:
        values: Those that were given, by name.
        nodes: The parameter that says on how many machines is trained.
    """
    return [
        *_check_workspace(values),
        *_check_volume(values),
        *_check_nodes(values, nodes),
        *_check_objects(values),
        *_check_image(values),
    ]


def _check_workspace(values: Mapping[str, Any]) -> list[Problem]:
    workspace = values.get("workspace", MOUNT_PATH)
    if workspace == MOUNT_PATH:
        return []
    return [Problem("workspace", repr(workspace), f"{MOUNT_PATH}, where the volume is mounted", "Leave it out.")]


def _check_volume(values: Mapping[str, Any]) -> list[Problem]:
    given = {VOLUME[name]: values[name] for name in VOLUME if name in values}
    if not given:
        return []
    from kfp_finetune.components.create_volume.spec import VolumeSpec, check_spec

    if not (values.get("create_volume", True) or values.get("prepare_volume", False)):
        given = {name: value for name, value in given.items() if name == "name"}
    if "access_mode" in given:
        given["access_modes"] = (given.pop("access_mode"),)
    try:
        check_spec(VolumeSpec(**{"name": "volume", **given}))
    except UserError as error:
        ours = {theirs: name for name, theirs in VOLUME.items()}
        return [replace(problem, what=ours[problem.what]) for problem in error.problems]
    return []


def _check_nodes(values: Mapping[str, Any], name: str) -> list[Problem]:
    nodes, mode = values.get(name, 1), values.get("access_mode", FOR_ONE_NODE[0])
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
