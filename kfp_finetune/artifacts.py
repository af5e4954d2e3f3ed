"""What travels between steps: a small JSON file and metadata that the KFP UI shows as lineage."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kfp_finetune.manifests import Manifest
from kfp_finetune.workspace import FETCH_REPORT_NAME

if TYPE_CHECKING:
    from kfp import dsl


def record_manifest(manifest: Manifest, artifact: "dsl.Artifact") -> None:
    """Writes a manifest as an artifact, with what a person looks for as metadata.

    Args:
        manifest: What a step published on the volume.
        artifact: The step's output.
    """
    with open(artifact.path, "w") as file:
        file.write(manifest.to_json())
    artifact.metadata.update(
        {
            "source": manifest.source,
            "revision": manifest.revision,
            "path": manifest.path,
            "bytes": manifest.size,
            "files": len(manifest.files),
            **{name: str(value) for name, value in manifest.facts.items()},
        }
    )


def record_report(manifest: Manifest, workspace: str, artifact: "dsl.HTML") -> None:
    """Gives the page that lies in a published directory as an artifact.

    Args:
        manifest: What a step published on the volume.
        workspace: Where the volume is mounted.
        artifact: The step's output.
    """
    shutil.copyfile(Path(workspace, manifest.path, FETCH_REPORT_NAME), artifact.path)


def record_figures(manifest: Manifest, names: Sequence[str], artifact: "dsl.Metrics") -> None:
    """Gives facts that are numbers as metrics.

    Args:
        manifest: What a step published on the volume.
        names: Of its facts; "bytes" is the size of its files.
        artifact: The step's output.
    """
    for name in names:
        artifact.log_metric(name, manifest.size if name == "bytes" else manifest.facts[name])


def recall_manifest(artifact: "dsl.Artifact") -> Manifest:
    """Reads what `record_manifest` wrote.

    Args:
        artifact: A step's input.
    """
    with open(artifact.path) as file:
        return Manifest.from_json(file.read())
