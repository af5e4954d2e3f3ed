"""What is wrong with a run's values, told before anything is sent."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kfp_finetune.client.checks import values as checks
from kfp_finetune.client.checks.values import KINDS
from kfp_finetune.client.parameters import read_parameters, read_pipeline
from kfp_finetune.client.server.launching import prepare
from kfp_finetune.errors import Problem, UserError

PIPELINES = sorted((Path(__file__).parents[2] / "pipelines").glob("*/pipeline.yaml"))
TORCHTUNE, PREFERENCES, TRANSFORMERS = "torchtune-finetune", "preference-tuning", "transformers-finetune"
SWEEP = "sweep"
TYPE = {"transformer_type": "AutoModelForSequenceClassification"}
TWO_NODES = {"launcher": "trainjob", "num_nodes": 2}
DIGEST = "sha256:" + "0a" * 32
TOKEN = "hf_" + "aB3" * 12

ANYWHERE: list[tuple[Mapping[str, Any], str, str]] = [
    ({"dataset": "xxx://a"}, "dataset", "'xxx://a'"),
    ({"dataset": "https://huggingface.co/datasets/org/rows"}, "dataset", "https"),
    ({"dataset": "   "}, "dataset", "'   '"),
    ({"model": "s3://"}, "model", "'s3://'"),
    ({"model": "hf://a/b c"}, "model", "hf://a/b c"),
    ({"dataset": "hf://models/org/name"}, "dataset", "hf://models/org/name"),
    ({"dataset": "s3://key:hidden@bucket/rows"}, "dataset", "s3://bucket/rows with a secret"),
    ({"dataset": "https://me:hidden@example.com/rows"}, "dataset", "https://example.com/rows with a secret"),
    ({"dataset": "s3://bucket/rows?X-Amz-Signature=hidden"}, "dataset", "s3://bucket/rows with a secret"),
    ({"model": f"hf://{TOKEN}@org/name"}, "model", "hf://***@org/name with a secret"),
    ({"dataset": "/data", "dataset_config": "en"}, "dataset_config", "'en' for /data"),
    ({"publish_to": "registry+http://host/a/b"}, "publish_to", "'a/b' is no name of a registered model"),
    ({"publish_to": "registry+https://me:hidden@host/a"}, "publish_to", "registry+https://host/a' with a password"),
    ({"ui_host": "kubeflow.example.com"}, "ui_host", "'kubeflow.example.com'"),
    ({"ui_host": "https://me:hidden@example.com"}, "ui_host", "'https://example.com'"),
    ({"keep_runs": -1}, "keep_runs", "-1"),
    ({"name": "a/b"}, "name", "'a/b'"),
    ({"start_from": "newest"}, "start_from", "'newest'"),
    ({"num_nodes": 2}, "num_nodes", "2, with launcher process"),
    ({"advanced": {"enable_activation_offloading": True}}, "enable_activation_offloading", "true"),
    ({"advanced": {"fsdp_cpu_offload": True}, "method": "qlora"}, "fsdp_cpu_offload", "true"),
    ({"advanced": {"metric_loggers": {"wandb": {"api_key": "hidden"}}}}, "metric_loggers.wandb.api_key", "a secret"),
    ({"advanced": {"metric_loggers": {"comet": {}}}}, "metric_loggers", "'comet'"),
    ({"overrides": {"x": 1}}, "overrides", "'x'"),
    ({"overrides": {"epochs": 3}}, "overrides", "'epochs'"),
    ({"overrides": {"shuffle": "yes"}}, "overrides.shuffle", "'yes'"),
    ({"overrides": {"optimizer": 5}}, "overrides.optimizer", "5"),
    ({"overrides": {"loss._component_": "os.system"}}, "overrides.loss._component_", "'os.system'"),
    ({"overrides": {"optimizer_in_bwd": True}}, "overrides.optimizer_in_bwd", "true"),
]
REMOTE: list[tuple[Mapping[str, Any], str, str]] = [
    ({"model": "foo/bar/baz"}, "model", "'foo/bar/baz', a relative path"),
    ({"dataset": "rows.jsonl"}, "dataset", "'rows.jsonl', a relative path"),
    ({"dataset": "./rows"}, "dataset", "'./rows', a relative path"),
    ({"dataset": "file://rows/*.csv"}, "dataset", "'file://rows/*.csv', a relative path"),
    ({"dataset": "org/name@main", "dataset_config": "en", "model": "~/model"}, "model", "'~/model', a relative path"),
    ({"workspace": ""}, "workspace", "''"),
    ({"workspace": "data"}, "workspace", "'data'"),
    ({"workspace": "/data"}, "workspace", "'/data'"),
    ({"workspace": "/data", "launcher": "trainjob"}, "workspace", "'/data'"),
    ({"access_mode": "RWX"}, "access_mode", "'RWX'"),
    ({"volume_size": "100"}, "volume_size", "'100'"),
    ({"storage_class": "Fast"}, "storage_class", "'Fast'"),
    ({"storage_class": "Fast", "create_volume": False, "prepare_volume": True}, "storage_class", "'Fast'"),
    ({"volume": ""}, "volume", "''"),
    ({"volume": "Bad_Name"}, "volume", "'Bad_Name'"),
    ({"volume": "Bad_Name", "create_volume": False}, "volume", "'Bad_Name'"),
    ({"hf_secret": ""}, "hf_secret", "''"),
    ({"hf_secret": "A_B"}, "hf_secret", "'A_B'"),
    ({"s3_secret": "a..b"}, "s3_secret", "'a..b'"),
    ({"s3_secret": "a" * 254}, "s3_secret", "'aaa"),
    ({"runtime": ""}, "runtime", "''"),
    ({"runtime": "torch distributed"}, "runtime", "'torch distributed'"),
    ({"train_image": ""}, "train_image", "''"),
    ({"train_image": "a b"}, "train_image", "'a b'"),
    ({"train_image": "registry.example.com/Team/name"}, "train_image", "Team"),
    ({"train_image": "name:"}, "train_image", "'name:'"),
    (TWO_NODES, "access_mode", "ReadWriteOnce, with 2 nodes"),
    ({**TWO_NODES, "access_mode": "ReadWriteOncePod"}, "access_mode", "ReadWriteOncePod, with 2 nodes"),
    ({"trainjob": {"cpus": 1}}, "trainjob.cpus", "1"),
]
RIGHT: list[Mapping[str, Any]] = [
    {},
    {"model": "", "dataset": ""},  # `given.py` says that nothing was given
    {"model": "gpt2", "dataset": "org/rows@refs/convert/parquet"},
    {"model": "/workspace/in/base", "dataset": "/workspace/in/*.jsonl"},
    {"model": "file:///workspace/in/hf_a_model_that_was_tuned_already", "dataset": "s3://bucket/part-?.parquet"},
    {"dataset": "hf://org/rows", "dataset_config": "en"},
    {"publish_to": "registry+http://registry.kubeflow:8080/a s3://bucket/x", "ui_host": "https://example.com/pipeline"},
    {"keep_runs": 0, "workspace": "/workspace", "volume": "a-1", "volume_size": "1.5Ti"},
    {"access_mode": "RWX", "volume_size": "", "storage_class": "Fast", "create_volume": False},
    {"hf_secret": "hub.example.com", "s3_secret": "s3-1", "runtime": "torch-distributed"},
    {"train_image": "localhost:5000/team/a__b.c-d:v1_2"},
    {"train_image": f"ghcr.io/kfp-finetune/kfp-finetune-train:0.1.0@{DIGEST}"},
    {**TWO_NODES, "access_mode": "ReadWriteMany"},
    {**TWO_NODES, "create_volume": False},
    {"advanced": {"enable_activation_offloading": True, "enable_activation_checkpointing": True}},
    {
        "overrides": {
            "optimizer.betas": [0.9, 0.95],
            "shuffle": True,
            "loss": {"_component_": "torch.nn.CrossEntropyLoss"},
        }
    },
]


def check_local(values: Mapping[str, Any], pipeline: str = TORCHTUNE) -> list[Problem]:
    return checks.check_local(values, pipeline)


def check_remote(values: Mapping[str, Any], pipeline: str = TORCHTUNE) -> list[Problem]:
    return checks.check_remote(values, pipeline)


def found(problems: list[Problem]) -> list[str]:
    return [problem.what for problem in problems]


@pytest.mark.parametrize(("values", "what", "given"), [*ANYWHERE, *REMOTE])
def test_what_a_step_on_a_server_would_refuse_is_one_problem(values: Mapping[str, Any], what: str, given: str) -> None:
    problems = check_remote(values)
    assert found(problems) == [what]
    assert problems[0].given.startswith(given) or given in problems[0].given
    assert "hidden" not in str(problems[0]) and TOKEN not in str(problems[0])


@pytest.mark.parametrize(("values", "what", "given"), ANYWHERE)
def test_what_a_step_on_this_machine_would_refuse_is_one_problem(
    values: Mapping[str, Any], what: str, given: str
) -> None:
    problems = check_local(values)
    assert found(problems) == [what] and given in problems[0].given


@pytest.mark.parametrize("values", RIGHT)
def test_what_the_steps_take_is_no_problem(values: Mapping[str, Any]) -> None:
    assert check_remote(values) == []


@pytest.mark.parametrize("values", [values for values, _, _ in REMOTE if not values.keys() & {"workspace", "launcher"}])
def test_what_only_a_server_needs_is_no_problem_of_this_machine(values: Mapping[str, Any]) -> None:
    assert check_local(values) == []


def test_a_workspace_of_this_machine_may_lie_anywhere() -> None:
    assert check_local({"workspace": "/data"}) == []
    assert found(check_local({"workspace": "data"})) == ["workspace"]
    assert found(check_local({"workspace": "data", "launcher": "trainjob"})) == ["workspace"]


def test_all_problems_are_told_and_each_value_once() -> None:
    wrong: dict[str, Any] = {
        "epochs": 0,
        "num_nodes": 2,
        "name": "a/b",
        "model": "a/b/c",
        "dataset": "xxx://a",
        "trainjob": {"cpus": 1},
        "workspace": "",
        "volume": "",
        "volume_size": "100",
        "access_mode": "RWX",
        "storage_class": "Fast",
        "hf_secret": "A_B",
        "s3_secret": "",
        "runtime": "",
        "train_image": "a b",
    }
    assert sorted(found(check_remote(wrong))) == sorted(wrong.keys() - {"trainjob"} | {"trainjob.cpus"})


def test_a_wrong_setting_does_not_hide_the_others() -> None:
    values = {"epochs": 0, "advanced": {"enable_activation_offloading": True}, "overrides": {"x": 1}}
    assert found(check_remote(values)) == ["epochs", "enable_activation_offloading", "overrides"]


def test_what_lies_here_says_nothing_about_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert check_remote({"model": "org/name"}) == check_local({"model": "org/name"}) == []


def test_trackers_are_looked_for_where_trainings_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    values = {"advanced": {"metric_loggers": {"mlflow": {}}}}
    assert check_remote(values) == []
    assert found(check_local(values))[0] == "metric_loggers.mlflow"


def test_everything_wrong_for_transformers_is_one_message_before_anything_is_sent() -> None:
    values = {
        "model": "a/b/c",
        "transformer_type": "AutoModelForSpeech",
        "name": "a/b",
        "epochs": 0,
        "strategy": "zero3",
        "training_arguments": {"output_dir": "x", "hub_token": "hidden", "weight_decay": 2},
        "lora_config": {"r": 0, "rank": 8},
        "split": "train[",
        "advanced": {"seed": -1, "epochs": 2},
        "launcher": "trainjob",
        "num_workers": 3,
        "num_procs_per_worker": 2,
        "resources_per_worker": {"gpu": 4, "cpu": 5},
        "trainjob": {"cpus": 1},
        "keep_runs": -1,
        "train_image": "a b",
    }
    with pytest.raises(UserError) as caught:
        prepare("transformers_finetune", values)
    nested = {"training_arguments", "lora_config", "advanced", "resources_per_worker", "trainjob"}
    whole = values.keys() - nested - {"launcher", "num_workers", "num_procs_per_worker"}
    parts = {f"training_arguments.{name}" for name in ("output_dir", "hub_token", "weight_decay")}
    parts |= {"lora_config.r", "lora_config", "seed", "advanced.epochs", "resources_per_worker.gpu", "trainjob.cpus"}
    assert sorted(found(caught.value.problems)) == sorted(whole | parts | {"dataset", "access_mode"})
    assert "hidden" not in str(caught.value)


def test_everything_wrong_for_preferences_is_one_message_before_anything_is_sent() -> None:
    values = {
        "method": "dora", "beta": 0.0, "loss": "rso", "label_smoothing": 0.1, "advanced": {"packed": True},
        "overrides": {"loss.beta": 1}, "gate": {"max_perplexity": 3}, "column_map": {"input": "x"},
    }  # fmt: skip
    wrong = {"method", "beta", "label_smoothing", "advanced", "overrides", "gate", "column_map"}
    for pipeline in PREFERENCES, "mine":
        assert set(found(check_remote(values, pipeline))) == wrong
    right = {"method": "full", "beta": 0.5, "gate": {"min_reward_accuracy": 0.6, "max_loss": 0.6}, "loss": "rso"}
    assert check_remote(right, PREFERENCES) == []
    assert found(check_remote(right, TORCHTUNE)) == ["gate"]


def test_everything_wrong_for_a_distillation_is_one_message_before_anything_is_sent() -> None:
    values = {
        "method": "lorra", "kd_ratio": 0.0, "teacher": "./teacher", "advanced": {"tensor_parallel_dim": 2},
        "overrides": {"loss.num_output_chunks": 1}, "gate": {"min_reward_accuracy": 3},
    }  # fmt: skip
    for pipeline in "distillation", "mine":
        assert set(found(check_remote(values, pipeline))) == {*values.keys() - {"advanced"}, "tensor_parallel_dim"}
    assert check_remote({"kd_ratio": 1, "method": "qdora", "teacher": "hf://org/teacher"}, "distillation") == []
    with pytest.raises(UserError) as caught:
        prepare("distillation", {"model": "hf://org/model", "dataset": "hf://org/rows"})
    assert found(caught.value.problems) == ["teacher"]


def test_a_transformer_type_must_be_given_and_is_asked_for_once() -> None:
    for given in {}, {"transformer_type": ""}:
        with pytest.raises(UserError) as caught:
            prepare("transformers_finetune", {"model": "gpt2", "dataset": "org/rows", **given})
        assert found(caught.value.problems) == ["transformer_type"]


def test_what_the_steps_of_transformers_take_is_no_problem() -> None:
    values = {
        "model": "hf://google-bert/bert-base-cased",
        "dataset": "hf://yelp_review_full",
        "column_map": {"label": "stars"},
        "split": "train[:3000]",
        "training_arguments": {"weight_decay": 0.01, "optim": "adafactor", "not_known_here": 1},
        "lora_config": {"r": 8, "lora_alpha": 8.0, "layers_to_transform": [0.0], "lora_dropout": 0.1, "bias": "none"},
        "launcher": "trainjob",
        "num_workers": 4,
        "num_procs_per_worker": 2,
        "resources_per_worker": {"gpu": 2, "cpu": 5, "memory": "10G"},
        "access_mode": "ReadWriteMany",
    }
    assert prepare("transformers_finetune", {**TYPE, **values}).arguments == {**TYPE, **values}
    assert found(check_local({**TYPE, "num_workers": 2}, TRANSFORMERS)) == ["num_workers"]
    assert found(check_local({**TYPE, "resources_per_worker": {"cpu": 5}}, TRANSFORMERS)) == ["resources_per_worker"]


SWEPT: list[tuple[Mapping[str, Any], list[str]]] = [
    ({"search": {"learning_rate": [1e-4, 2]}}, ["search.learning_rate"]),
    ({"search": {"lora_ranc": [8]}}, ["search"]),
    ({"search": {}}, ["search"]),
    ({"search": {"lora_rank": {"min": 4, "max": 64}}}, ["samples"]),
    ({"search": {"lora_rank": {"min": 4, "max": 64}}, "samples": 4}, []),
    ({"search": {"lora_rank": [8.0, 16.0], "weight_decay": [0.0, 0.1]}, "samples": 0.0}, []),
    ({"search": {"weight_decay": [0.1]}, "advanced": {"weight_decay": 0.2}}, ["advanced.weight_decay"]),
    ({"search": {"seed": [1, 2]}, "metric": "perplexity", "direction": "min"}, []),
    ({"search": {"seed": [1, 2]}, "metric": "arc_easy.acc"}, ["metric"]),
    ({"search": {"seed": [1, 2]}, "metric": "arc_easy.acc", "evaluation": {"tasks": ["arc_easy"]}}, []),
    ({"search": {"seed": [1, 2]}, "direction": "down"}, ["direction"]),
    ({"search": {"seed": [1, 2]}, "epochs": 0}, ["epochs"]),
    ({"search": {"enable_activation_offloading": [False, True]}}, ["enable_activation_offloading"]),
]


@pytest.mark.parametrize(("values", "wrong"), SWEPT)
def test_every_trial_of_a_sweep_is_checked_and_what_is_wrong_with_some_is_told_once(
    values: Mapping[str, Any], wrong: list[str]
) -> None:
    assert found(check_remote(values, SWEEP)) == found(check_local(values, "mine")) == wrong


def test_which_trials_have_a_problem_is_told() -> None:
    values = {"search": {"method": ["lora", "qlora"], "lora_rank": [4, 8]}, "advanced": {"fsdp_cpu_offload": True}}
    (problem,) = check_remote(values, SWEEP)
    assert problem.given == "true (with method qlora, lora_rank 4)"


def test_a_search_must_be_given_and_is_asked_for_once() -> None:
    with pytest.raises(UserError) as caught:
        prepare("sweep", {"model": "gpt2", "dataset": "org/rows"})
    assert found(caught.value.problems) == ["search"]


def test_a_pipeline_of_the_user_s_own_is_checked_as_its_steps_would() -> None:
    values = {"column_map": {"label": "stars"}, "lora_config": {"r": 0}}
    assert found(check_remote(values, "mine")) == ["column_map"]
    assert found(check_remote({**TYPE, **values}, "mine")) == ["lora_config.r"]


@pytest.mark.parametrize("pipeline", ["mine", TORCHTUNE, PREFERENCES, TRANSFORMERS, SWEEP])
def test_parameters_of_another_pipeline_may_be_of_other_types(pipeline: str) -> None:
    other: tuple[int, ...] = (1, 2)
    settings = {"num_nodes", "num_workers", "num_procs_per_worker", "training_arguments"}
    assert check_remote(dict.fromkeys(KINDS.keys() - settings, other), pipeline) == []


def test_a_registry_alone_is_told_the_volume_of_a_cluster_and_nothing_of_this_machine() -> None:
    values = {"publish_to": "registry+http://registry.kubeflow:8080/a"}
    assert check_remote(values, TORCHTUNE) == []
    assert found(check_local(values)) == ["publish_to"]


def test_the_kinds_are_those_of_the_pipelines() -> None:
    types = {"STRING": str, "NUMBER_INTEGER": int, "BOOLEAN": bool, "STRUCT": dict}
    parameters = {name: one for pipeline in PIPELINES for name, one in read_parameters(pipeline).items()}
    assert {name: types[parameters[name].type] for name in KINDS} == KINDS


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.parent.name)
def test_the_defaults_of_the_pipelines_are_right(path: Path) -> None:
    pipeline = read_pipeline(path)
    assert pipeline.name in checks.TRAINERS
    parameters = [parameter for parameter in pipeline.parameters.values() if not parameter.required]
    whole = {parameter.name: int(parameter.default) for parameter in parameters if parameter.type == "NUMBER_INTEGER"}
    assert check_remote({parameter.name: parameter.default for parameter in parameters} | whole, pipeline.name) == []


def test_checking_needs_neither_torch_nor_datasets() -> None:
    common = {"volume": "a", "model": "gpt2", "dataset": "org/rows"}
    own = {"lora_config": {"r": 8}, "training_arguments": {"weight_decay": 0.1}}
    code = (
        "import sys\nfrom kfp_finetune.client.checks.values import check_remote\n"
        f"assert not check_remote({ ({**common, **RIGHT[-1], 'advanced': {'metric_loggers': {}}})!r}, {TORCHTUNE!r})\n"
        f"assert not check_remote({ ({**common, **TYPE, **own})!r}, {TRANSFORMERS!r})\n"
        f"assert not check_remote({ ({**common, 'search': {'lora_rank': [4, 8]}})!r}, {SWEEP!r})\n"
        "print({'torch', 'datasets', 'transformers', 'peft', 'boto3'} & sys.modules.keys() or 'none')"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "none"
