"""How many turns of a loop run at once: KFP takes no run parameter for it, so that compiling says it."""

import os

MAX_PARALLEL_VARIABLE = "KFP_FINETUNE_MAX_PARALLEL"

MAX_PARALLEL = int(os.environ.get(MAX_PARALLEL_VARIABLE) or 4)
"""Trials of a sweep."""
