"""What travels between steps: a small JSON file and metadata that the KFP UI shows as lineage."""

from typing import TYPE_CHECKING

from kfp_finetune.workspace import Manifest

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


def recall_manifest(artifact: "dsl.Artifact") -> Manifest:
    """Reads what `record_manifest` wrote.

    Args:
        artifact: A step's input.
    """
    with open(artifact.path) as file:
        return Manifest.from_json(file.read())
