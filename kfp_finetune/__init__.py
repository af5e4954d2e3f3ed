"""What the steps of a fine-tuning pipeline share: workspace, errors, progress, sources, launchers, reports."""

from kfp_finetune._version import VERSION as __version__

__all__ = ["__version__"]
