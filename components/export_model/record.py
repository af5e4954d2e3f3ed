"""An export as the artifact that KFP shows."""

from typing import TYPE_CHECKING

from kfp_finetune.artifacts import record_manifest
from kfp_finetune.manifests import Manifest
from kfp_finetune.results import MANIFEST, print_result

if TYPE_CHECKING:
    from kfp import dsl


def record_export(manifest: Manifest, model: "dsl.Model") -> None:
    """Writes an export as an artifact.

    Args:
        manifest: Of the export.
        model: The step's output.
    """
    record_manifest(manifest, model)
    print_result("export", {"export": manifest.path, "export_bytes": manifest.size}, {MANIFEST: model.uri})
