"""From a laptop or a notebook: compile, run, follow, schedule.

`finetune`, `schedule`, `open_run` and `Address` are imported when they are asked for: kfp takes a second to load.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kfp_finetune.client.notebook import Run, finetune, open_run, schedule
    from kfp_finetune.client.server.connection import Address

__all__ = ["Address", "Run", "finetune", "open_run", "schedule"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "server.connection" if name == "Address" else "notebook"
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
