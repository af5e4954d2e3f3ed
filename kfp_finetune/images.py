"""The two images that the steps run in; compiling names them."""

import os

from kfp_finetune._version import VERSION

REGISTRY_VARIABLE = "KFP_FINETUNE_REGISTRY"
TAG_VARIABLE = "KFP_FINETUNE_TAG"
STEPS_IMAGE_VARIABLE = "KFP_FINETUNE_STEPS_IMAGE"
TRAIN_IMAGE_VARIABLE = "KFP_FINETUNE_TRAIN_IMAGE"


def image_name(kind: str) -> str:
    """The name under which an image is built and pushed.

    Args:
        kind: "steps" or "train".
    """
    registry = os.environ.get(REGISTRY_VARIABLE) or "ghcr.io/kfp-finetune"
    return f"{registry}/kfp-finetune-{kind}:{os.environ.get(TAG_VARIABLE) or VERSION}"


STEPS_IMAGE = os.environ.get(STEPS_IMAGE_VARIABLE) or image_name("steps")
"""Image of the steps that need no torch."""

TRAIN_IMAGE = os.environ.get(TRAIN_IMAGE_VARIABLE) or image_name("train")
"""Image of the steps that load a model; every step runs in it."""
