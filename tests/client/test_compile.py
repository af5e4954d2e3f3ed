"""Compiling: the images are those that were asked for, and a file that differs from its source is found."""

import re
from pathlib import Path

from kfp_finetune.client.compile import compile_pipelines, stale_pipelines
from kfp_finetune.images import STEPS_IMAGE


def test_registry_and_tag_are_in_the_file_which_is_stale_without_them(tmp_path: Path) -> None:
    assert "example.com" not in STEPS_IMAGE
    written = compile_pipelines(tmp_path, registry="example.com/me", tag="v9")
    assert written == [tmp_path / "torchtune_finetune" / "pipeline.yaml"]
    images = set(re.findall(r"image: (.*)", written[0].read_text()))
    assert images == {f"example.com/me/kfp-finetune-{name}:v9" for name in ("steps", "train")}
    assert stale_pipelines(tmp_path) == written
