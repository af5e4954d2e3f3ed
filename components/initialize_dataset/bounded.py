"""The look at a dataset's rows in a process of its own, whose memory is bounded."""

from pathlib import Path
from typing import Any

from kfp_finetune.bounded import Failed, answer, ask
from kfp_finetune.components.initialize_dataset.look import MEMORY_BYTES, TOO_LARGE, Look, look_at
from kfp_finetune.datafiles import DataFiles

LOOK_FAILED = "the look failed; the step's log says why"


def look_within_bounds(files: DataFiles) -> Look:
    """Reads a dataset's rows once, as `look_at` does; what needs more than `MEMORY_BYTES` is a problem of the look.

    Args:
        files: The dataset's files.
    """
    splits = {split: [str(path) for path in paths] for split, paths in files.splits.items()}
    try:
        return Look(**ask(__name__, {"format": files.format, "splits": splits}))
    except MemoryError:
        problem = TOO_LARGE
    except Failed:
        problem = LOOK_FAILED
    return Look({}, False, [], {}, 0, 0, [], problem)


def _look(asked: Any) -> Any:
    splits = {split: tuple(map(Path, paths)) for split, paths in asked["splits"].items()}
    return vars(look_at(DataFiles(asked["format"], splits)))


if __name__ == "__main__":
    answer(_look, MEMORY_BYTES)
