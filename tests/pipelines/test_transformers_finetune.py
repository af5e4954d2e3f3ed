"""The compiled pipeline for models of transformers runs here from end to end."""

import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from local_runs import run_here
from servers import model_registry
from servers.model_registry import Registry
from servers.s3 import S3
from small_tasks import SMALL_TASKS, TEXTS, save_base
from sources.conftest import s3, s3_running
from transformers import pipeline

from kfp_finetune.manifests import read_manifest
from kfp_finetune.results import REPORT, parse_result

__all__ = ["s3", "s3_running"]

PIPELINE = Path(__file__).parents[2] / "pipelines/transformers_finetune/pipeline.yaml"


run = partial(run_here, PIPELINE)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    directory, task = tmp_path_factory.mktemp("opinions"), SMALL_TASKS[TEXTS]
    base = save_base(task.write_model(directory / "base"), task.base)
    return {
        "model": str(base),
        "dataset": str(task.write_rows(directory / "rows")),
        "transformer_type": TEXTS,
        "column_map": {"text": "review", "label": "verdict"},
        "name": "opinions",
        "held_out": "20%",
        "dtype": "fp32",
        "epochs": 3,
        "num_procs_per_worker": 2,
    }


@pytest.fixture
def registry() -> Iterator[Registry]:
    """An empty Model Registry."""
    with model_registry.serve() as running:
        yield running


def test_the_pipeline_runs_from_a_csv_by_a_gate_to_a_model_that_predicts_and_then_has_nothing_to_do(
    given: dict, tmp_path: Path, s3: S3, registry: Registry
):
    bucket = f"tests-{uuid.uuid4().hex[:12]}"
    s3.client().create_bucket(Bucket=bucket)
    settings = given | {
        "lora_config": {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"},
        "learning_rate": 2e-3,
        "epochs": 4,
        "training_arguments": {"weight_decay": 0.01, "warmup_steps": 5},
    }
    refused = run(tmp_path, **settings, gate={"min_accuracy": 0.5, "min_improvement": 5})
    printed = " ".join((refused.stdout + refused.stderr).split())
    assert refused.returncode == 2 and "less than allowed" in printed and "gate.min_accuracy" not in printed, printed
    assert not list(tmp_path.glob("exports/[!.]*")) and not list(tmp_path.glob("latest/*"))
    assert "transformers-train done" in refused.stdout and "train: 100%" in refused.stdout
    first = run(tmp_path, **settings, gate={"min_accuracy": 0.9, "min_improvement": 0.3})
    assert first.returncode == 0, first.stdout
    assert "transformers-train done" in first.stdout and "train: 100%" not in first.stdout
    latest = tmp_path / "latest/opinions"
    tell = pipeline("text-classification", model=str(latest / "merged"))
    assert tell("the soup was lovely and the room too")[0]["label"] == "praise"
    assert tell("the soup was not lovely and the room too")[0]["label"] == "blame"
    assert (latest / "adapter/adapter_model.safetensors").exists()
    assert read_manifest(latest).facts["predicted_rows"] == 8
    assert (latest / "report.html").read_text().count("<svg") >= 5
    log = (tmp_path / "logs/local.log").read_text()
    results = list(filter(None, (parse_result(line.strip()) for line in log.splitlines())))
    assert [result.step for result in results] == ["plan", "train", "export"]
    assert results[1].figures["accuracy"] > 0.9
    assert results[2].figures["loss_after"] < results[2].figures["loss_before"] - 0.3
    assert REPORT in results[2].files

    again = run(tmp_path, **settings)
    assert again.returncode == 0, again.stdout
    assert "transformers-train" not in again.stdout

    alone = run(tmp_path, **settings, publish_to=f"registry+{registry.url}/opinions")
    assert alone.returncode == 2 and "Add s3://BUCKET/PREFIX" in " ".join((alone.stdout + alone.stderr).split())
    publishing = settings | {"publish_to": f"registry+{registry.url}/opinions s3://{bucket}/models"}
    published = run(tmp_path, **publishing)
    assert published.returncode == 0 and "train: 100%" not in published.stdout, published.stdout
    names = [entry["Key"] for entry in s3.client().list_objects_v2(Bucket=bucket)["Contents"]]
    key = latest.resolve().name
    wanted = ("README.md", "MANIFEST.json", "model.safetensors", "adapter/adapter_model.safetensors")
    assert {f"models/{key}/{name}" for name in wanted} < set(names)
    card = s3.client().get_object(Bucket=bucket, Key=f"models/{key}/README.md")["Body"].read().decode()
    assert "accuracy" in card and "AutoModelForSequenceClassification" in card
    registry.requests.clear()
    again = run(tmp_path, **publishing)
    assert again.returncode == 0 and "transformers-train" not in again.stdout, again.stdout
    assert registry.writes() == []
    assert registry.kept["model_artifacts"][0]["uri"] == f"s3://{bucket}/models/{key}/"
    told = registry.properties("model_versions")
    assert (told["pipeline"], told["method"]) == ("transformers-finetune", "lora") and told["run_id"]
    assert told["figures_after.accuracy"] > 0.9 and told["loss_after"] < told["loss_before"]


def test_all_that_is_wrong_is_one_message_before_anything_runs(given: dict, tmp_path: Path):
    wrong = {
        "transformer_type": "AutoModelForTokenClassification",
        "training_arguments": {"output_dir": "/tmp", "num_train_epochs": 3},
        "lora_config": {"rank": 8},
        "num_workers": 2,
        "resources_per_worker": {"gpu": 1},
        "gate": {"min_exact_match": 0.5},
        "publish_to": "ftp://models",
    }
    result = run(tmp_path, **given | wrong)
    printed = (result.stdout + result.stderr).replace("\n", " ")
    assert result.returncode == 2, printed
    for named in (
        "output_dir",
        "epochs",
        "rank",
        "num_workers",
        "resources_per_worker",
        "min_exact_match",
        "ftp://models",
    ):
        assert named in printed
    assert "Traceback" not in printed and not list(tmp_path.glob("trainings/[!.]*"))


def test_a_misspelt_argument_is_found_by_the_installed_class(given: dict, tmp_path: Path):
    result = run(tmp_path, **given | {"training_arguments": {"weight_decy": 0.01}})
    printed = " ".join((result.stdout + result.stderr).split())
    assert result.returncode == 2, printed
    assert "Did you mean weight_decay?" in printed and "Traceback" not in printed


def test_a_type_that_does_not_fit_the_rows_is_refused_with_what_they_look_like(given: dict, tmp_path: Path):
    result = run(tmp_path, **given | {"transformer_type": "AutoModelForTokenClassification", "column_map": {}})
    printed = " ".join((result.stdout + result.stderr).split())
    assert result.returncode == 2, printed
    assert "ner_tags" in printed and "review" in printed and "Traceback" not in printed
