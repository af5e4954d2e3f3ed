"""The compiled pipeline runs here from end to end."""

import json
import shutil
from functools import partial
from pathlib import Path

import datasets
import pytest
import tiny
import torch
from local_runs import run_here
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from kfp_finetune.client.summary import read_summary
from kfp_finetune.components.evaluate_model.loss import held_out_loss
from kfp_finetune.manifests import read_manifest
from kfp_finetune.results import COMPARISON, COMPARISON_REPORT, FILES, parse_result
from kfp_finetune.workspace import Workspace

ROOT = Path(__file__).parents[2]
PIPELINE = ROOT / "pipelines/torchtune_finetune/pipeline.yaml"


run = partial(run_here, PIPELINE)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("base") / "model")


def test_the_pipeline_runs_from_a_csv_to_a_model_that_loads_and_then_has_nothing_to_do(base: Path, tmp_path: Path):
    lines = [f'{row["input"]},"{row["output"]}"' for row in tiny.rows(120)]
    data = tmp_path / "pairs.csv"
    data.write_text("\n".join(["question,answer", *lines]) + "\n")
    settings = {
        "model": str(base),
        "dataset": str(data),
        "name": "colours",
        "column_map": {"input": "question", "output": "answer"},
        "held_out": "10%",
        "dtype": "fp32",
        "epochs": 2,
        "max_seq_len": 128,
        "batch_size": 4,
        "learning_rate": 0.02,
        "num_procs_per_node": 2,
        "advanced": {"seed": 7, "lora_alpha": 32},
    }
    first = run(tmp_path / "workspace", **settings)
    assert first.returncode == 0, first.stdout
    assert "torchtune-train done" in first.stdout and "train: 100%" in first.stdout
    summary = read_summary(Workspace(tmp_path / "workspace"), "colours")
    assert summary.loss_after < summary.loss_before - 0.5
    assert summary.tokens_per_second > 0
    assert summary.report.read_text().count("<svg") >= 4
    model, info = AutoModelForCausalLM.from_pretrained(summary.export, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert summary.adapter is not None and (summary.adapter / "adapter_model.safetensors").exists()
    log = (tmp_path / "workspace/logs/local.log").read_text()
    results = list(filter(None, (parse_result(line.strip()) for line in log.splitlines())))
    assert [result.step for result in results] == ["plan", "train", "evaluate", "export"]
    assert {name for result in results for name in result.files} == set(FILES) - {COMPARISON, COMPARISON_REPORT}
    assert results[2].figures["loss_after"] == pytest.approx(summary.loss_after, abs=1e-3)

    again = run(tmp_path / "workspace", **settings)
    assert again.returncode == 0, again.stdout
    assert "torchtune-train" not in again.stdout


def test_a_series_trains_on_from_its_newest_model_where_rows_are_new_and_ends_at_once_where_they_are_not(
    tmp_path: Path,
):
    model, data, root = tiny.write_model(tmp_path / "model"), tmp_path / "rows.jsonl", tmp_path / "workspace"
    latest = root / "latest/finetune"
    settings = {
        "model": str(model), "dataset": str(data), "start_from": "latest", "dtype": "fp32", "max_seq_len": 128,
        "batch_size": 4, "learning_rate": 0.01,
    }  # fmt: skip

    def exported_by_a_run() -> tuple[str, Path]:
        done = run(root, **settings)
        assert done.returncode == 0, done.stdout
        return done.stdout, latest.resolve()

    tiny.write_rows(data, 40, seed=1)
    said, first = exported_by_a_run()
    assert "torchtune-train done" in said
    written = (first / "MANIFEST.json").stat().st_mtime_ns
    shutil.rmtree(model)
    shutil.rmtree(root / "models")
    said, again = exported_by_a_run()
    assert again == first and (first / "MANIFEST.json").stat().st_mtime_ns == written
    assert "torchtune-train" not in said and "Nothing to do" in said

    tiny.write_rows(data, 40, seed=2)
    said, second = exported_by_a_run()
    assert "torchtune-train done" in said and second != first
    training = root / "trainings" / second.name
    evaluation = json.loads((training / "evaluation.json").read_text())
    base = AutoModelForCausalLM.from_pretrained(first / "merged", dtype=torch.float32).eval()
    held_out = datasets.load_from_disk(str(training / "tokens/held_out"))
    assert evaluation["loss_before"] == pytest.approx(held_out_loss("check", base, held_out)[0], abs=1e-5)
    adapter = json.loads((second / "adapter/adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == str(first / "merged")
    facts = [read_manifest(export).facts for export in (first, second)]
    assert [of["origin"] for of in facts] == [str(model)] * 2 and facts[0]["work"] != facts[1]["work"]

    said, again = exported_by_a_run()
    assert again == second and "torchtune-train" not in said
    assert not list((root / "models").glob("[!.]*"))


BAD = {
    "no such file": ({"dataset": "/nowhere/rows.jsonl"}, "/nowhere/rows.jsonl"),
    "no such model": ({"model": "/nowhere"}, "/nowhere"),
    "a column that is not there": ({"column_map": {"input": "question"}}, "column_map.input"),
    "a split that is not there": ({"split": "validation"}, "split"),
    "epochs=-1": ({"epochs": -1}, "epochs: given -1"),
    "a misspelt method": ({"method": "lorra"}, "'qlora' or 'qdora'"),
    "a name that is a path": ({"name": "../../etc"}, "name"),
    "a word that KFP's runner rewrites": ({"new_system_prompt": "python3"}, "python3"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_message_and_status_2(case: str, base: Path, tmp_path: Path):
    changes, named = BAD[case]
    data = tiny.write_rows(tmp_path / "rows.jsonl", 40)
    result = run(tmp_path / "workspace", **{"model": str(base), "dataset": str(data), "max_seq_len": 128, **changes})
    printed = result.stdout + result.stderr
    assert result.returncode == 2, printed
    assert named in printed.replace("\n", "")
    assert "Traceback" not in printed
    assert printed.count("problem with what was given") == 1
    workspace = tmp_path / "workspace"
    assert not list(workspace.glob("trainings/[!.]*")) and not list(workspace.glob("*/.tmp*"))


def test_a_crash_is_told_from_a_mistake_with_its_last_lines_and_the_log(base: Path, tmp_path: Path):
    data = tiny.write_rows(tmp_path / "rows.jsonl", 40)
    untied = shutil.copytree(base, tmp_path / "untied")
    weights = load_file(untied / "model.safetensors")
    weights["lm_head.weight"] = torch.zeros_like(weights["model.embed_tokens.weight"])
    save_file(weights, untied / "model.safetensors", metadata={"format": "pt"})
    result = run(tmp_path / "workspace", model=str(untied), dataset=str(data), max_seq_len=128)
    assert result.returncode == 1
    assert "lm_head is not embed_tokens" in result.stdout.replace("\n", " ")
    assert "torchtune-train failed" in result.stdout.replace("\n", " ")
    assert "lm_head is not embed_tokens" in (tmp_path / "workspace/logs/local.log").read_text()
    (report,) = (tmp_path / "workspace").glob("trainings/*/training.html")
    assert "lm_head is not embed_tokens" in report.read_text()
