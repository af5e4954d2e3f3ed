"""The step's KFP interface."""

from kfp import dsl

from kfp_finetune.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def initialize_model(uri: str, model: dsl.Output[dsl.Model], workspace: str = "/workspace"):
    """Puts a model's configuration, weights and tokenizer on the volume, or finds them there.

    Args:
        uri: A folder with config.json, safetensors weights and a tokenizer.
        model: The files' manifest: where they lie, their sizes and checksums, the architecture.
        workspace: Where the volume is mounted.
    """
    from kfp_finetune.artifacts import record_manifest
    from kfp_finetune.components.initialize_model.model import initialize_model as initialize
    from kfp_finetune.errors import clear_errors

    with clear_errors():
        record_manifest(initialize(uri, workspace), model)
