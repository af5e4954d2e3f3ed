"""Compiles every pipeline beside its source."""

import importlib
import os
import tempfile
from pathlib import Path

from kfp_finetune.images import REGISTRY_VARIABLE, TAG_VARIABLE

PIPELINES = ("torchtune_finetune",)
"""Folders below pipelines/; each has a function of its own name in pipeline.py."""


def compile_pipelines(root: Path, registry: str | None = None, tag: str | None = None) -> list[Path]:
    """Compiles every pipeline to ROOT/NAME/pipeline.yaml.

    Args:
        root: Directory to write to, usually the repository's pipelines/.
        registry: Registry and path of the images; None for the default.
        tag: Tag of the images; None for this version.

    Returns:
        The files.
    """
    if registry:
        os.environ[REGISTRY_VARIABLE] = registry
    if tag:
        os.environ[TAG_VARIABLE] = tag
    from kfp import compiler

    written = []
    for name in PIPELINES:
        module = importlib.import_module(f"kfp_finetune.pipelines.{name}.pipeline")
        path = root / name / "pipeline.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        compiler.Compiler().compile(getattr(module, name), str(path))
        written.append(path)
    return written


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
