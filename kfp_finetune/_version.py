"""The version of the distribution, of the images and of the compiled pipelines."""

VERSION = "0.1.0"

VERSION_VARIABLE = "KFP_FINETUNE_VERSION"
"""Environment variable by which a compiled pipeline tells each step the version it was compiled from."""
