"""Compiling: the images are those that were asked for, and a file that differs from its source is found."""

import os
import re
import subprocess
import sys
from pathlib import Path

from kfp_finetune.client.compile import PIPELINES, compile_pipelines, stale_pipelines
from kfp_finetune.images import STEPS_IMAGE

ROOT = Path(__file__).parents[2]


def test_registry_and_tag_are_in_the_file_which_is_stale_without_them(tmp_path: Path) -> None:
    assert "example.com" not in STEPS_IMAGE
    written = compile_pipelines(tmp_path, registry="example.com/me", tag="v9")
    assert written == [tmp_path / name / "pipeline.yaml" for name in PIPELINES]
    for path in written:
        assert images(path) == {f"example.com/me/kfp-finetune-{name}:v9" for name in ("steps", "train")}
    assert stale_pipelines(tmp_path) == written


def test_a_whole_image_of_your_own_wins_over_registry_and_tag(tmp_path: Path) -> None:
    written = compile_pipelines(
        tmp_path, registry="example.com/me", tag="v9", steps_image="example.com/a:1", train_image="example.com/b:2"
    )
    assert [images(path) for path in written] == [{"example.com/a:1", "example.com/b:2"}] * len(written)


def test_how_many_trials_run_at_once_is_said_when_compiling(tmp_path: Path) -> None:
    limits = {}
    for name, most in ("default", None), ("two", 2):
        text = compile_pipelines(tmp_path / name, max_parallel=most)[PIPELINES.index("sweep")].read_text()
        limits[name] = re.findall(r"parallelismLimit: (\d+)", text)
    assert limits == {"default": ["4"], "two": ["2"]}


def test_compile_sh_takes_the_two_values_that_name_the_images_when_they_are_built(tmp_path: Path) -> None:
    names = {"REGISTRY": "example.com/me", "TAG": "v9"}
    built = {
        subprocess.run(
            [ROOT / "containers/name.sh", kind], env=os.environ | names, capture_output=True, text=True, check=True
        ).stdout.strip()
        for kind in ("steps", "train")
    }
    compiled = os.environ | names | {"KFP_FINETUNE": str(Path(sys.executable).parent / "kfp-finetune")}
    subprocess.run([ROOT / "compile.sh", "--directory", tmp_path], env=compiled, capture_output=True, check=True)
    assert images(tmp_path / "torchtune_finetune/pipeline.yaml") == built


def images(compiled: Path) -> set[str]:
    """Every image that a compiled pipeline names, as a step's own or as a parameter's default."""
    return set(re.findall(r"example\.com/[\w/.-]+:\w+", compiled.read_text()))
