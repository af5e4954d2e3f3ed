"""The compiled pipeline, from end to end, in both images as a strict cluster would run them."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
import tiny
import torch
from docker.types import Mount
from images.containers import OTHER_VERSION, REGISTRY, STRICT, Images
from kfp import local
from kfp.components import load_component_from_text
from transformers import AutoModelForCausalLM

from kfp_finetune._version import VERSION
from kfp_finetune.client.compile import compile_pipelines
from kfp_finetune.client.summary import read_summary
from kfp_finetune.workspace import Workspace


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Folders of the host that any user may write, since a container's user is nobody's."""
    made = {name: tmp_path / name for name in ("artifacts", "workspace", "given", "compiled")}
    for folder in made.values():
        folder.mkdir()
        folder.chmod(0o777)
    for file in tiny.write_model(made["given"] / "model").iterdir():
        file.chmod(0o644)
    tiny.write_rows(made["given"] / "rows.jsonl", 120)
    return made


# KFP's DockerRunner takes a step that fails quickly for one that succeeded; the run then ends with a RuntimeError at a
# later step, with a ValueError at an output that is missing, or not at all.
RUN_ENDS_EARLY = (RuntimeError, ValueError)


def run_pipeline(folders: dict[str, Path], images: Images, train_image: str, user: str) -> None:
    """Runs the pipeline that is compiled for a tag, with its run parameter for the training image set."""
    compiled = compile_pipelines(folders["compiled"], registry=REGISTRY, tag=images.tag)
    path = next(path for path in compiled if path.parent.name == "torchtune_finetune")
    # KFP's local runner leaves a run parameter in an image's name as it is; a server puts its value there.
    text = path.read_text().replace("'{{$.inputs.parameters[''pipelinechannel--train_image'']}}'", train_image)
    mounts = [
        Mount("/workspace", str(folders["workspace"]), type="bind"),
        Mount("/given", str(folders["given"]), type="bind", read_only=True),
    ]
    local.init(local.DockerRunner(mounts=mounts, **{**STRICT, "user": user}), pipeline_root=str(folders["artifacts"]))
    load_component_from_text(text)(
        model="/given/model",
        dataset="/given/rows.jsonl",
        name="colours",
        held_out="10%",
        dtype="fp32",
        epochs=2,
        max_seq_len=128,
        batch_size=4,
        learning_rate=0.02,
        num_procs_per_node=2,
        accelerator="",
        create_volume=False,
    )


def test_the_pipeline_runs_as_any_user_on_a_read_only_root_to_a_model_that_loads(
    images: Images, folders: dict[str, Path]
):
    run_pipeline(folders, images, images.train, user="12345:0")
    summary = read_summary(Workspace(folders["workspace"]), "colours")
    assert summary.loss_after < summary.loss_before - 0.5
    assert summary.report.read_text().count("<svg") >= 4
    model, info = AutoModelForCausalLM.from_pretrained(summary.export, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert {(path.stat().st_uid, path.stat().st_gid) for path in summary.export.rglob("*")} == {(12345, 0)}
    (outputs,) = folders["artifacts"].glob("*/evaluate-model/executor_output.json")
    artifacts = json.loads(outputs.read_text())["artifacts"]
    (metrics,) = artifacts["metrics"]["artifacts"]
    assert metrics["metadata"]["loss_after"] == pytest.approx(summary.loss_after, abs=1e-3)


def test_an_image_of_another_version_than_the_pipeline_s_is_one_clear_error(
    changed: Images, folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
):
    with suppress(*RUN_ENDS_EARLY):
        run_pipeline(folders, changed, changed.train, user="12345:0")
    assert_one_clear_error(capsys.readouterr().out)
    assert not list(folders["workspace"].iterdir())


def test_a_train_image_of_another_version_than_the_steps_image_is_one_clear_error(
    images: Images, changed: Images, folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
):
    with suppress(*RUN_ENDS_EARLY):
        run_pipeline(folders, images, changed.train, user="12345:12345")
    assert_one_clear_error(capsys.readouterr().out)
    made = list(folders["workspace"].rglob("*"))
    assert {path.name for path in made if path.parent == folders["workspace"]} >= {"datasets", "models"}
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in made} == {(12345, 12345)}
    assert not (folders["workspace"] / "trainings").exists()


def assert_one_clear_error(printed: str) -> None:
    expected = f"holds kfp-finetune {OTHER_VERSION}, in a pipeline that was compiled from {VERSION}"
    assert printed.count(expected) == printed.count("error: ") > 0
    assert "Traceback" not in printed
