"""What a training reads, written once: rows as the model reads them, and how they are to be understood."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_finetune.components.transformers_train.check import Request
from kfp_finetune.components.transformers_train.recipe import Recipe, write_recipe
from kfp_finetune.components.transformers_train.settings import Settings
from kfp_finetune.components.transformers_train.tasks.columns import quote, undecoded
from kfp_finetune.components.transformers_train.tasks.models import known_labels
from kfp_finetune.components.transformers_train.tasks.processors import load_processor
from kfp_finetune.components.transformers_train.tasks.rows import CUT
from kfp_finetune.components.transformers_train.tasks.task import Preparation, Shape
from kfp_finetune.training.parts import Part, check_sizes, open_parts
from kfp_finetune.workspace import Workspace

if TYPE_CHECKING:
    import datasets

ROWS_FOLDER = "rows"
TOKENS = "input_ids"
SAMPLES = 3


@dataclass(frozen=True)
class Counts:
    """What became of a part's rows.

    Args:
        rows: As the model reads them; a long text may have become several.
        tokens: Theirs; 0 for pictures.
        cut_rows: Those of which something was cut off.
        lost_tokens: Tokens cut off.
        given_rows: Rows that the dataset has.
    """

    rows: int
    tokens: int
    cut_rows: int
    lost_tokens: int
    given_rows: int


@dataclass(frozen=True)
class Prepared:
    """What became of a training's rows.

    Args:
        shape: How they are read.
        train: Of the rows to train on.
        held_out: Of the rows held out.
        lengths: Of each row to train on, in tokens, before cutting; empty for pictures.
        samples: A few of the rows held out, by column.
        total_steps: Updates of the weights.
    """

    shape: Shape
    train: Counts
    held_out: Counts
    lengths: Sequence[int]
    samples: Sequence[Mapping[str, str]]
    total_steps: int


def prepare(request: Request, workspace: Workspace, staging: Path) -> Prepared:
    """Writes rows and recipe.

    Args:
        request: The training.
        workspace: The tree on the volume.
        staging: The directory that becomes the training's.

    Raises:
        UserError: If columns, labels or a row do not fit the task.
    """
    task, settings = request.task, request.settings
    dataset, model = workspace.root / request.dataset.path, workspace.root / request.model.path
    with open_parts(dataset, settings.split, settings.held_out) as parts:
        train, held_out = parts
        shape = task.shape(train, settings.task, known_labels(request.config))
        task.check(held_out.rows, shape)
        used = list(dict.fromkeys(shape.columns.values()))
        for part in parts:
            check_sizes(part.rows.select_columns(used), part.split)
        processor = load_processor(task, model)
        preparation = Preparation(processor, shape, settings.task, directory=str(dataset))
        rows = task.prepare(train, preparation)
        counts, lengths = _save(rows, train, staging / ROWS_FOLDER / "train")
        preparation = Preparation(processor, shape, settings.task, held_out=True, directory=str(dataset))
        others, _ = _save(task.prepare(held_out, preparation), held_out, staging / ROWS_FOLDER / "held_out")
        samples = _samples(held_out, used)
    total = settings.epochs * steps_in_epoch(counts.rows, settings)
    labels = list(shape.labels.names) if shape.labels else []
    write_recipe(staging, Recipe(request.model.path, asdict(settings), labels, total))
    return Prepared(shape, counts, others, lengths, samples, total)


def steps_in_epoch(rows: int, settings: Settings) -> int:
    """Updates of the weights in an epoch, as transformers' Trainer counts them.

    Args:
        rows: To train on.
        settings: How many of them are in a batch and batches in an update; the last batches are filled up so that each
            process has as many.
    """
    batches = math.ceil(math.ceil(rows / settings.batch_size) / settings.world_size)
    return math.ceil(batches / settings.gradient_accumulation_steps)


def _save(rows: "datasets.Dataset", part: Part, target: Path) -> tuple[Counts, list[int]]:
    cut = rows[CUT][:] if CUT in rows.column_names else [0] * len(rows)
    kept = [len(ids) for ids in rows[TOKENS]] if TOKENS in rows.column_names else []
    saved = rows.remove_columns([CUT]) if CUT in rows.column_names else rows
    saved.save_to_disk(target)
    counts = Counts(
        rows=len(rows),
        tokens=sum(kept),
        cut_rows=sum(lost > 0 for lost in cut),
        lost_tokens=sum(cut),
        given_rows=len(part.rows),
    )
    return counts, [length + lost for length, lost in zip(kept, cut, strict=True)] if kept else []


def _samples(part: Part, columns: Sequence[str]) -> list[dict[str, str]]:
    """The first rows as text; of pictures and their bytes only that they are there."""
    rows = undecoded(part.rows.select_columns(list(columns)).select(range(min(SAMPLES, len(part.rows)))))
    return [{column: _shown(rows.features[column], value) for column, value in row.items()} for row in rows]


def _shown(feature: Any, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes) or (isinstance(value, dict) and "bytes" in value):
        return "a picture"
    if isinstance(value, list) and hasattr(feature, "feature"):
        return ", ".join(_shown(feature.feature, item) for item in value)
    names = getattr(feature, "names", None)
    return names[value] if names and isinstance(value, int) and 0 <= value < len(names) else quote(value)
