"""The compiled pipeline with a teacher runs here from end to end."""

from functools import partial
from pathlib import Path

import tiny
from local_runs import run_here

from kfp_finetune.client.summary import read_summary
from kfp_finetune.workspace import Workspace

ROOT = Path(__file__).parents[2]
run = partial(run_here, ROOT / "pipelines/distillation/pipeline.yaml")
SETTINGS = {"dtype": "fp32", "max_seq_len": 128, "batch_size": 4, "learning_rate": 0.005, "num_procs_per_node": 1}


def test_the_pipeline_runs_from_two_models_to_an_export_and_refuses_a_teacher_of_another_kind(tmp_path: Path):
    model, teacher = tiny.write_model(tmp_path / "model"), tiny.write_model(tmp_path / "teacher", num_hidden_layers=4)
    settings = SETTINGS | {
        "model": str(model), "teacher": str(teacher), "dataset": str(tiny.write_rows(tmp_path / "rows.jsonl", 60)),
        "held_out": "20%", "kd_ratio": 0.3,
    }  # fmt: skip
    first = run(tmp_path / "workspace", **settings)
    assert first.returncode == 0, first.stdout
    assert "plan-distillation done" in first.stdout
    summary = read_summary(Workspace(tmp_path / "workspace"), "distillation")
    assert summary.loss_after < summary.loss_before
    card = (summary.export.parent / "README.md").read_text()
    assert "| Learned | from the teacher " in card and "kd\\_ratio 0.3" in card
    assert len(list((tmp_path / "workspace/models").glob("[!.]*"))) == 2

    again = run(tmp_path / "workspace", **settings)
    assert again.returncode == 0 and "torchtune-train" not in again.stdout, again.stdout

    other = tiny.write_model(tmp_path / "short", max_position_embeddings=100)
    refused = run(tmp_path / "workspace", **{**settings, "teacher": str(other), "advanced": {"lora_alpha": -1}})
    printed = (refused.stdout + refused.stderr).replace("\n", "")
    assert refused.returncode == 2 and "lora_alpha: given -1" in printed and "Traceback" not in printed
