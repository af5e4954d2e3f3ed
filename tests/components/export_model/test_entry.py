"""What a registry is told of an export: enough to find, to judge and to make it again, and no secret or path."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from components.export_model.test_model_card import PLAN

from kfp_finetune.components.export_model.publish.entry import MOST_FIGURES, describe
from kfp_finetune.components.export_model.this_run import ThisRun, check_ui_host
from kfp_finetune.manifests import MANIFEST_NAME, Manifest
from kfp_finetune.training.evaluation import EVALUATION_NAME
from kfp_finetune.training.plan import Plan
from kfp_finetune.workspace import MOUNT_PATH, Workspace

RUN = ThisRun("run-1", "https://kfp.example/pipeline/", "torchtune-finetune", "claim")


def leave(root: Path, plan: Plan, evaluation: dict) -> Workspace:
    """A workspace as the steps before leave it, as far as it is read here."""
    (root / plan.training).mkdir(parents=True)
    (root / plan.training / EVALUATION_NAME).write_text(json.dumps(evaluation))
    (root / plan.training / "config.yaml").write_text("{}")
    (root / plan.model).mkdir(parents=True)
    base = Manifest("model", "base", plan.base, "c" * 40, plan.model, ())
    (root / plan.model / MANIFEST_NAME).write_text(base.to_json())
    return Workspace(root)


def test_where_it_comes_from_and_how_good_it_is(tmp_path: Path) -> None:
    benchmarks = {"arc_easy": {"acc": {"base": 0.25, "tuned": 0.5, "stderr": 0.01}}}
    figures = {"figures_before": {"accuracy": 0.5}, "figures_after": {"accuracy": 0.75, "odd": math.nan}}
    evaluation = {"loss_before": 2.5, "loss_after": 1.25, "benchmarks": benchmarks, **figures}
    plan = replace(PLAN, dataset_revision="b" * 40)
    entry = describe(plan, leave(tmp_path, plan, evaluation), RUN)
    assert (entry.version, entry.uri) == (plan.key, "")
    assert entry.description == "Qwen2.5-0.5B-Instruct, fine-tuned on hf://org/rows@v2 (lora, torchtune)"
    assert (
        entry.properties.items()
        >= {
            "run_id": "run-1",
            "run_link": "https://kfp.example/pipeline/#/runs/details/run-1",
            "pipeline": "torchtune-finetune",
            "base_model": "hf://Qwen/Qwen2.5-0.5B-Instruct@main",
            "base_model_revision": "c" * 40,
            "dataset": "hf://org/rows@v2",
            "dataset_revision": "b" * 40,
            "method": "lora",
            "trainer": "torchtune",
            "license": "apache-2.0",
            "loss_before": 2.5,
            "loss_after": 1.25,
            "improvement": 1.25,
            "perplexity": math.exp(1.25),
            "figures_after.accuracy": 0.75,
            "arc_easy.acc": 0.5,
        }.items()
    )
    assert "figures_after.odd" not in entry.properties and "began_with" not in entry.properties


def test_a_series_that_goes_on_tells_what_it_began_with(tmp_path: Path) -> None:
    plan = replace(PLAN, model="exports/older/merged", base="/workspace/exports/older/merged")
    told = describe(plan, leave(tmp_path, plan, {}), RUN).properties
    assert (told["began_with"], told["began_with_revision"]) == ("merged, a local folder", "c" * 40)
    assert "base_model_revision" not in told and "loss_after" not in told


def test_texts_are_bounded_and_tell_neither_secrets_nor_paths(tmp_path: Path) -> None:
    hostile = "s3://user:hidden@bucket/rows?X-Amz-Signature=hidden"
    figures = {"figures_after": {f"{number}{'x' * 500}\n": 1.0 for number in range(500)}}
    plan = replace(PLAN, origin="/home/me/base", dataset=hostile, dataset_revision="r\n" * 1000, license="\x1b[31m")
    entry = describe(plan, leave(tmp_path, plan, {"loss_before": 1, "loss_after": 1, **figures}), RUN)
    told = json.dumps({**entry.properties, "description": entry.description})
    assert "hidden" not in told and "/home" not in told and "\\u001b" not in told and "\\n" not in told
    assert all(len(str(value)) <= 320 and len(name) <= 320 for name, value in entry.properties.items())
    assert len(entry.properties) <= MOST_FIGURES + 20


def test_the_volume_is_a_place_only_where_it_is_mounted_on_a_cluster() -> None:
    assert RUN.volume_address(MOUNT_PATH) == RUN.volume_address(f"{MOUNT_PATH}/") == "pvc://claim"
    assert RUN.volume_address("/home/me/workspace") == ThisRun().volume_address(MOUNT_PATH) == ""


@pytest.mark.parametrize(
    "wrong",
    [
        "kfp.example",
        "ftp://kfp.example",
        "https://me:hidden@kfp.example",
        "https://kfp.example/?token=hidden",
        "https://kfp.example/#/runs",
        "https://kfp.example/a b",
        "javascript:alert(1)",
        f"https://kfp.example/{'x' * 300}",
    ],
)
def test_an_address_of_the_ui_that_is_no_plain_one_is_refused(wrong: str) -> None:
    (problem,) = check_ui_host(wrong)
    assert problem.what == "ui_host" and "hidden" not in str(problem)
    assert ThisRun("run-1", wrong).page == ""


def test_a_run_has_a_page_if_its_uis_address_is_known() -> None:
    assert ThisRun("run-1").page == ThisRun(ui_host="https://kfp.example").page == ""
    assert ThisRun("a/b #", "http://[::1]:8080").page == "http://[::1]:8080/#/runs/details/a%2Fb%20%23"
    assert check_ui_host("") == check_ui_host("https://kfp.example/pipeline") == []
