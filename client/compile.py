"""Compiles every pipeline beside its source."""

import importlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from kfp_finetune.images import REGISTRY_VARIABLE, STEPS_IMAGE_VARIABLE, TAG_VARIABLE, TRAIN_IMAGE_VARIABLE
from kfp_finetune.pipelines.parallel import MAX_PARALLEL_VARIABLE

PIPELINES = ("torchtune_finetune", "preference_tuning", "distillation", "transformers_finetune", "sweep")
"""Folders below pipelines/; each has a function of its own name in pipeline.py."""


def compile_pipelines(
    root: Path,
    registry: str | None = None,
    tag: str | None = None,
    steps_image: str | None = None,
    train_image: str | None = None,
    max_parallel: int | None = None,
) -> list[Path]:
    """Compiles every pipeline to ROOT/NAME/pipeline.yaml.

    Args:
        root: Directory to write to, usually the repository's pipelines/.
        registry: Registry and path of the images; None for the default.
        tag: Tag of the images; None for this version.
        steps_image: Whole name of the image of the steps that need no torch, instead of registry and tag.
        train_image: Whole name of the image of the steps that load a model, instead of registry and tag.
        max_parallel: How many trials of a sweep run at once; None for the default.

    Returns:
        The files.
    """
    constants = {
        REGISTRY_VARIABLE: registry,
        TAG_VARIABLE: tag,
        STEPS_IMAGE_VARIABLE: steps_image,
        TRAIN_IMAGE_VARIABLE: train_image,
        MAX_PARALLEL_VARIABLE: None if max_parallel is None else str(max_parallel),
    }
    # In a process of its own: components and pipelines read these once, when they are imported.
    subprocess.run(
        [sys.executable, "-m", __name__, str(root)],
        env=os.environ | {variable: value or "" for variable, value in constants.items()},
        check=True,
    )
    return [root / name / "pipeline.yaml" for name in PIPELINES]


def _compile(root: Path) -> None:
    from kfp import compiler

    for name in PIPELINES:
        module = importlib.import_module(f"kfp_finetune.pipelines.{name}.pipeline")
        path = root / name / "pipeline.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        compiler.Compiler().compile(getattr(module, name), str(path))


def stale_pipelines(root: Path) -> list[Path]:
    """The compiled files that differ from what their sources compile to.

    Args:
        root: The repository's pipelines/.
    """
    with tempfile.TemporaryDirectory() as fresh:
        compiled = compile_pipelines(Path(fresh))
        return [
            root / path.relative_to(fresh)
            for path in compiled
            if not (root / path.relative_to(fresh)).exists()
            or (root / path.relative_to(fresh)).read_text() != path.read_text()
        ]


if __name__ == "__main__":
    _compile(Path(sys.argv[1]))
