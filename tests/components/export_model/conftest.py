"""Exports to publish, and the servers on loopback that the sources' tests have too."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from sources.conftest import quiet_machine, s3, s3_running

from kfp_finetune.manifests import MANIFEST_NAME, Manifest, describe_files

__all__ = ["quiet_machine", "s3", "s3_running"]

Export = tuple[Path, Manifest]
Write = Callable[..., Export]


@pytest.fixture
def write_export(tmp_path: Path) -> Write:
    """Writes an export of a key, with weights that a seed draws in so many shards."""

    def write(key: str = "abc", seed: int = 1, shards: int = 1, adapter: bool = True, size: int = 3000) -> Export:
        directory = tmp_path / "exports" / f"{key}-{seed}-{shards}-{adapter}"
        (directory / "merged").mkdir(parents=True)
        draw = random.Random(seed)
        names = ["model.safetensors"] if shards == 1 else [f"model-{n}-of-{shards}.safetensors" for n in range(shards)]
        for name in names:
            (directory / "merged" / name).write_bytes(draw.randbytes(size))
        if shards > 1:
            (directory / "merged" / "model.safetensors.index.json").write_text(f'{{"weight_map": {shards}}}')
        (directory / "merged" / "config.json").write_text('{"model_type": "llama"}')
        (directory / "merged" / "tokenizer.json").write_text('{"a": 1}')
        (directory / "merged" / f"vocab_{seed}.txt").write_text("only in this export")
        if adapter:
            (directory / "adapter").mkdir()
            (directory / "adapter" / "adapter_model.safetensors").write_bytes(draw.randbytes(size))
            (directory / "adapter" / "adapter_config.json").write_text("{}")
        (directory / "README.md").write_text(f"---\nlicense: mit\n---\n\n# Model {seed}\n")
        (directory / "report.html").write_text("<p>rows of the dataset</p>")
        facts = {"dataset": "s3://user:secret@bucket/rows", "parameters": 7}
        files = describe_files(directory)
        manifest = Manifest("export", key, "org/base", "trainings/abc/epoch_0", f"exports/{key}", files, facts)
        (directory / MANIFEST_NAME).write_text(manifest.to_json())
        return directory, manifest

    return write
