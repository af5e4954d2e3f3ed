"""The two images that the steps run in; compiling sets the registry and the tag."""

import os

from kfp_finetune._version import VERSION

REGISTRY_VARIABLE = "KFP_FINETUNE_REGISTRY"
TAG_VARIABLE = "KFP_FINETUNE_TAG"

_registry = os.environ.get(REGISTRY_VARIABLE, "ghcr.io/kfp-finetune")
_tag = os.environ.get(TAG_VARIABLE, VERSION)

STEPS_IMAGE = f"{_registry}/kfp-finetune-steps:{_tag}"
"""Image of the steps that need no torch."""

TRAIN_IMAGE = f"{_registry}/kfp-finetune-train:{_tag}"
"""Image of the steps that load a model."""
