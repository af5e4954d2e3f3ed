"""The parameter trainjob: every bad value is one problem that names it, whatever it is."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kfp_finetune.launch.trainjob.settings import JobSettings, read_job_settings

FIELDS = list(JobSettings.__dataclass_fields__)

GOOD: dict[str, Any] = {
    "cpu": "500m",
    "memory": "64Gi",
    "shared_memory": "1.5G",
    "service_account": "default-editor",
    "image_pull_secrets": ["registry"],
    "node_selector": {"node.kubernetes.io/instance-type": "gpu.large"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "tolerationSeconds": 60}],
    "affinity": {"nodeAffinity": {}},
    "queue": "team-a",
    "env": {"NCCL_DEBUG": "INFO"},
    "env_from_secrets": {"WANDB_API_KEY": "wandb.keys/API_KEY"},
    "labels": {"team": "a", "empty": "", "example.com/cost-center": "42"},
    "annotations": {"example.com/note": "any text: at all\n"},
    "start_timeout_minutes": 0.5,
    "timeout_hours": 24,
    "max_attempts": 1,
}


def test_every_setting_can_be_given() -> None:
    assert list(GOOD) == FIELDS
    settings, problems = read_job_settings(GOOD)
    assert problems == [] and settings == JobSettings(**GOOD)
    assert read_job_settings({}) == (JobSettings(), [])


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("cpu", "eight", "trainjob.cpu"),
        ("cpu", 8, "trainjob.cpu"),
        ("cpu", "-1", "trainjob.cpu"),
        ("memory", "64 Gi", "trainjob.memory"),
        ("memory", "64GB", "trainjob.memory"),
        ("memory", "64Gi\n", "trainjob.memory"),
        ("shared_memory", None, "trainjob.shared_memory"),
        ("service_account", "Default", "trainjob.service_account"),
        ("service_account", "a" * 254, "trainjob.service_account"),
        ("image_pull_secrets", "registry", "trainjob.image_pull_secrets"),
        ("image_pull_secrets", [1], "trainjob.image_pull_secrets.0"),
        ("node_selector", {"a": 1}, "trainjob.node_selector.a"),
        ("node_selector", {"a": "b c"}, "trainjob.node_selector.a"),
        ("tolerations", {"key": "a"}, "trainjob.tolerations"),
        ("tolerations", ["a"], "trainjob.tolerations.0"),
        ("affinity", [], "trainjob.affinity"),
        ("queue", "a/b", "trainjob.queue"),
        ("env", {"A": 1}, "trainjob.env.A"),
        ("env", [], "trainjob.env"),
        ("env", {"PET_NNODES": "2"}, "trainjob.env"),
        ("env_from_secrets", {"A": "secret"}, "trainjob.env_from_secrets.A"),
        ("env_from_secrets", {"A": "secret/key/more"}, "trainjob.env_from_secrets.A"),
        ("env_from_secrets", {"PET_NNODES": "secret/key"}, "trainjob.env_from_secrets"),
        ("labels", {"a": "b c"}, "trainjob.labels.a"),
        ("labels", {"a": "x" * 64}, "trainjob.labels.a"),
        ("labels", {"a b": "c"}, "trainjob.labels.a b.[key]"),
        ("annotations", {"a": None}, "trainjob.annotations.a"),
        ("start_timeout_minutes", 0, "trainjob.start_timeout_minutes"),
        ("start_timeout_minutes", float("nan"), "trainjob.start_timeout_minutes"),
        ("start_timeout_minutes", float("inf"), "trainjob.start_timeout_minutes"),
        ("start_timeout_minutes", "60", "trainjob.start_timeout_minutes"),
        ("timeout_hours", 8761, "trainjob.timeout_hours"),
        ("max_attempts", 0, "trainjob.max_attempts"),
        ("max_attempts", 2.5, "trainjob.max_attempts"),
        ("max_attempts", True, "trainjob.max_attempts"),
        ("gpu", 1, "trainjob.gpu"),
    ],
)
def test_a_bad_value_is_one_problem_that_names_it(name: str, value: Any, what: str) -> None:
    settings, problems = read_job_settings({**GOOD, name: value})
    assert [problem.what for problem in problems] == [what]
    assert settings is None or what in ("trainjob.env", "trainjob.env_from_secrets")


def test_every_problem_is_told_at_once() -> None:
    _, problems = read_job_settings({"cpu": "eight", "max_attempts": 0, "gpu": 1, "env": {"PET_NNODES": "2"}})
    assert sorted(problem.what.removeprefix("trainjob.") for problem in problems) == [
        "cpu", "env", "gpu", "max_attempts",
    ]  # fmt: skip


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
NAMES = st.sampled_from([*FIELDS, "self", "args", "kwargs", "__dataclass_self__", ""]) | st.text()


@given(JSON | st.dictionaries(NAMES, JSON))
@example({1: "a key that is no text"})
@example({"env": {1: "a"}})
@example({"__dataclass_self__": 1})
def test_anything_gives_settings_or_problems(values: Any) -> None:
    settings, problems = read_job_settings(values)
    assert (settings is not None) or problems
    assert all(problem.what.startswith("trainjob") for problem in problems)
    if isinstance(values, dict) and not problems:
        json.dumps(values)
