"""A user's own keys of torchtune's configuration: checked by name, by type and by really calling what they name."""

from pathlib import Path

import pytest

from kfp_finetune.components.torchtune_train.check import check_alone, check_together
from kfp_finetune.components.torchtune_train.config import Steps, build_config
from kfp_finetune.components.torchtune_train.models import read_architecture
from kfp_finetune.components.torchtune_train.overrides import SECTIONS, apply_overrides, check_overrides
from kfp_finetune.components.torchtune_train.rehearsal import rehearse
from kfp_finetune.components.torchtune_train.settings import TrainSettings

LLAMA = {
    "model_type": "llama",
    "vocab_size": 320,
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
}


def config() -> dict:
    architecture = read_architecture(LLAMA)
    return build_config(TrainSettings(), architecture, Path("model"), [], Path("training"), Steps(1, 1))


@pytest.mark.parametrize(
    ("overrides", "what", "named"),
    [
        ({"learning_rat": 1}, "overrides", "optimizer"),
        ({"output_dir": "/"}, "overrides", "layout"),
        ({"checkpointer.model_type": "X"}, "overrides", "layout"),
        ({"model.lora_rank": 4}, "overrides", "lora_rank"),
        ({"epochs": 3}, "overrides", "the setting epochs"),
        ({"optimizer": "torch.optim.SGD"}, "overrides.optimizer", "an object"),
        ({"optimizer._component_": "os.system"}, "overrides.optimizer._component_", "torch.optim.AdamW"),
        ({"optimizer._component_": "torch.optim.LBFGS"}, "overrides.optimizer._component_", "torch.optim.AdamW"),
        ({"optimizer.weight_decay": 0.1}, "overrides.optimizer", "weight_decay is a setting"),
        ({"optimizer.beta": 0.1}, "overrides.optimizer", "betas"),
        ({"optimizer.eps": "small"}, "overrides.optimizer.eps", "valid number"),
        ({"optimizer.betas": [0.9]}, "overrides.optimizer.betas", "Field required"),
        ({"loss.reduction": "sum"}, "overrides.loss", "none"),
        ({"optimizer": {"_component_": "torch.optim.SGD", "fused": True}}, "overrides.optimizer", "momentum"),
        ({"shuffle": "no"}, "overrides.shuffle", "boolean"),
        ({"log_every_n_steps": 10}, "overrides", "every step"),
        ({"custom_sharded_layers": ["mlp"]}, "overrides.custom_sharded_layers", "tok_embeddings"),
    ],
)
def test_a_key_or_value_that_cannot_be_is_refused(overrides: dict, what: str, named: str):
    problems = check_overrides(config(), overrides)
    assert [problem.what for problem in problems] == [what]
    assert named in str(problems[0])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"optimizer.betas": [2.0, 3.0]}, "Invalid beta parameter"),
        ({"optimizer._component_": "torch.optim.SGD", "optimizer.nesterov": True}, "Nesterov momentum"),
        ({"loss._component_": "torch.nn.CrossEntropyLoss", "loss.label_smoothing": 2.0}, "label_smoothing"),
    ],
)
def test_values_that_only_the_library_knows_to_be_wrong_are_found_by_calling_it(overrides: dict, said: str):
    assert not check_overrides(config(), overrides)
    sections = {key.partition(".")[0] for key in overrides}
    problems = rehearse(apply_overrides(config(), overrides), sections)
    assert len(problems) == 1 and said in str(problems[0])


@pytest.mark.parametrize(("section", "name"), [(key, name) for key, names in SECTIONS.items() for name in names])
def test_what_may_be_chosen_can_be_called_with_our_arguments(section: str, name: str):
    overrides = {f"{section}._component_": name}
    assert not check_overrides(config(), overrides)
    changed = apply_overrides(config(), overrides)
    assert changed[section]["_component_"] == name
    assert not rehearse(changed, [section])


def test_every_problem_of_the_overrides_is_found_at_once():
    overrides = {"optimizer": {"eps": "x", "betas": 3, "unknown": 1}, "seed": 3, "shuffle": 2}
    found = {problem.what for problem in check_overrides(config(), overrides)}
    assert found == {
        "overrides.optimizer.eps", "overrides.optimizer.betas", "overrides.optimizer", "overrides", "overrides.shuffle",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"enable_activation_offloading": True}, "enable_activation_offloading"),
        ({"fsdp_cpu_offload": True, "optimizer": "adamw_8bit"}, "fsdp_cpu_offload"),
        ({"overrides": {"optimizer_in_bwd": True}}, "overrides.optimizer_in_bwd"),
        ({"metric_loggers": {"comet": {}}}, "metric_loggers"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(settings: dict, what: str):
    assert [problem.what for problem in check_alone(TrainSettings(**settings))] == [what]


@pytest.mark.parametrize(
    ("settings", "config", "named"),
    [
        (
            {"overrides": {"custom_sharded_layers": ["output"]}},
            {"tie_word_embeddings": True},
            "overrides.custom_sharded_layers",
        ),
        ({"apply_lora_to_output": True}, {"tie_word_embeddings": True}, "apply_lora_to_output"),
        ({"method": "lora", "num_procs_per_node": 2, "tensor_parallel_dim": 2}, {}, "method is full"),
        ({"method": "full", "num_procs_per_node": 3, "tensor_parallel_dim": 2}, {}, "a divisor of num_procs_per_node"),
        ({"method": "full", "num_procs_per_node": 8, "tensor_parallel_dim": 8}, {}, "8 heads and 4 key and value"),
        (
            {"method": "full", "num_procs_per_node": 2, "tensor_parallel_dim": 2},
            {"tie_word_embeddings": True},
            "an output layer of its own",
        ),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused(settings: dict, config: dict, named: str):
    problems = check_together(TrainSettings(**settings), read_architecture(LLAMA | config))
    assert len(problems) == 1 and named in str(problems[0])
