"""The step's KFP interface."""

from kfp import dsl

from kfp_finetune.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def initialize_dataset(uri: str, dataset: dsl.Output[dsl.Dataset], workspace: str = "/workspace"):
    """Puts a dataset's files on the volume, or finds them there.

    Args:
        uri: A file, folder or pattern (/data/part-*.jsonl) of json, jsonl, csv, parquet, arrow, txt or xml files.
        dataset: The files' manifest: where they lie, their sizes and checksums, the splits.
        workspace: Where the volume is mounted.
    """
    from kfp_finetune.artifacts import record_manifest
    from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset as initialize
    from kfp_finetune.errors import clear_errors

    with clear_errors():
        record_manifest(initialize(uri, workspace), dataset)
