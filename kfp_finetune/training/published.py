"""Where an export was published, so that a run that finds it finished knows whether there is anything left to do."""

import hashlib
import json
from collections.abc import Mapping

from kfp_finetune.manifests import Manifest
from kfp_finetune.publishing import write_atomically
from kfp_finetune.workspace import Workspace

PREFIX = ".published-"
"""Of the files beside the exports that hold it."""


def note_published(workspace: Workspace, export: Manifest, places: Mapping[str, str]) -> None:
    """Notes where an export was published, beside what was noted before.

    Args:
        workspace: The tree on the volume.
        export: The export's manifest.
        places: The URL of each, by the address that the user gave.
    """
    if places:
        known = {**published_places(workspace, export), **places}
        path = workspace.export(f"{PREFIX}{export.key}")
        write_atomically(path, json.dumps({"manifest": _digest(export), "places": known}, indent=2))


def published_places(workspace: Workspace, export: Manifest) -> Mapping[str, str]:
    """The URL of each place at which an export was published, by its address; none if it was made anew since.

    Args:
        workspace: The tree on the volume.
        export: The export's manifest.
    """
    try:
        noted = json.loads(workspace.export(f"{PREFIX}{export.key}").read_text())
    except FileNotFoundError:
        return {}
    return noted["places"] if noted["manifest"] == _digest(export) else {}


def _digest(export: Manifest) -> str:
    return hashlib.sha256(export.to_json().encode()).hexdigest()
