"""Whatever a user gives, the answer is settings or problems, never a traceback."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kfp_finetune.components.torchtune_train.settings import (
    DataSettings,
    TrainSettings,
    check_values,
    unfold_advanced,
)
from kfp_finetune.settings import read_settings
from kfp_finetune.training.parts import share_of

ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.dictionaries(st.text(), st.integers())
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("method", "LoRA"),
        ("epochs", -1),
        ("epochs", 0),
        ("epochs", 1.5),
        ("epochs", True),
        ("learning_rate", -1e-3),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("batch_size", -1),
        ("gradient_accumulation_steps", 0),
        ("max_seq_len", -1),
        ("lora_rank", 0),
        ("dtype", "fp16"),
        ("num_procs_per_node", 0),
        ("overrides", []),
        ("epoch", 1),
        ("lora_alpha", -1.0),
        ("lora_dropout", 1.0),
        ("lora_attn_modules", []),
        ("optimizer", "paged_adamw"),
        ("weight_decay", -0.1),
        ("lr_scheduler", "cosin"),
        ("warmup_ratio", 1.1),
        ("clip_grad_norm", -1),
        ("max_steps_per_epoch", "10"),
        ("seed", -1),
        ("compile", "yes"),
        ("num_output_chunks", 0),
        ("tensor_parallel_dim", 0),
        ("keep_last_n_checkpoints", -1),
        ("checkpoint_minutes", -0.5),
        ("export_checkpoint", "newest"),
    ],
)
def test_a_wrong_training_setting_is_named_with_what_is_allowed(name: str, value: object):
    settings, problems = read_settings(TrainSettings, {name: value})
    assert settings is None
    assert [problem.what for problem in problems] == [name]
    assert problems[0].given == repr(value)
    assert problems[0].allowed and problems[0].mend


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("column_map", {"prompt": "question"}),
        ("column_map", {"input": 3}),
        ("train_on_input", "yes"),
        ("split", "train[:10%"),
        ("split", ""),
        ("held_out", "0%"),
        ("held_out", "60%"),
        ("held_out", "5 %"),
        ("held_out", "0.05"),
    ],
)
def test_a_wrong_data_setting_is_named(name: str, value: object):
    settings, problems = read_settings(DataSettings, {name: value})
    assert settings is None
    assert problems and all(problem.what.startswith(name) for problem in problems)


@pytest.mark.parametrize("held_out", ["5%", "0.5%", "50%", "test", "validation[:100]"])
def test_held_out_is_a_share_or_a_split(held_out: str):
    settings, problems = read_settings(DataSettings, {"held_out": held_out})
    assert not problems and settings is not None
    assert (share_of(settings.held_out) is None) == (not held_out.endswith("%"))


def test_every_problem_is_found_at_once():
    _, problems = read_settings(TrainSettings, {"epochs": -1, "batch_size": "2", "method": "x", "unknown": 1})
    assert {problem.what for problem in problems} == {"epochs", "batch_size", "method", "unknown"}


def test_the_learning_rate_defaults_by_method():
    full = {rows: TrainSettings(method="full", batch_size=rows).peak_learning_rate for rows in (1, 2, 4, 8, 64)}
    assert full == pytest.approx({1: 2e-5, 2: 2e-5, 4: 2e-5 * math.sqrt(2), 8: 4e-5, 64: 4e-5})
    assert TrainSettings(method="lora").peak_learning_rate == 3e-4
    assert TrainSettings(method="lora", learning_rate=1e-5).peak_learning_rate == 1e-5


@pytest.mark.parametrize(
    ("advanced", "what", "mend"),
    [
        ({"epochs": 3}, "advanced.epochs", "Set the parameter epochs itself."),
        ({"held_out": "10%"}, "advanced.held_out", "Set the parameter held_out itself."),
        ({"weight_deca": 0.1}, "advanced", "Did you mean weight_decay?"),
        ({"quantum": 1}, "advanced", "overrides"),
        ([], "advanced", "Correct it."),
    ],
)
def test_what_does_not_belong_into_advanced_is_named(advanced: object, what: str, mend: str):
    values, problems = unfold_advanced({"method": "lora", "advanced": advanced})
    assert values == {"method": "lora"}
    assert [problem.what for problem in problems] == [what]
    assert mend in problems[0].mend
    assert check_values({"advanced": advanced}) == problems


def test_what_is_in_advanced_is_a_setting():
    assert unfold_advanced({"epochs": 2, "advanced": {"seed": 1}}) == ({"epochs": 2, "seed": 1}, [])
    assert [problem.what for problem in check_values({"advanced": {"seed": -1}})] == ["seed"]


@given(st.dictionaries(st.sampled_from([*TrainSettings.__dataclass_fields__, "other"]), ANYTHING))
def test_any_values_give_settings_or_problems(values: dict[str, object]):
    settings, problems = read_settings(TrainSettings, values)
    assert (settings is None) == bool(problems)


@given(st.dictionaries(st.sampled_from([*DataSettings.__dataclass_fields__, "other"]), ANYTHING))
def test_any_data_values_give_settings_or_problems(values: dict[str, object]):
    settings, problems = read_settings(DataSettings, values)
    assert (settings is None) == bool(problems)
