"""Where a training runs: v1's names of resources, and what does not go together."""

import pytest

from kfp_finetune.components.transformers_train.place import check_place, check_resources, read_place, read_resources
from kfp_finetune.errors import UserError

AT = ("torch-distributed", "volume", {}, "/workspace")


@pytest.mark.parametrize(
    ("given", "gpu", "cpu", "memory"),
    [
        ({}, None, "", ""),
        ({"gpu": 2, "cpu": 5, "memory": "10G"}, 2, "5", "10G"),
        ({"gpu": "2", "cpu": "500m", "memory": 1_000_000}, 2, "500m", "1000000"),
        ({"gpu": 2.0, "cpu": 2.5}, 2, "2.5", ""),  # KFP hands on numbers of an object as floats
    ],
)
def test_amounts_are_numbers_or_text_as_v1_took_them(given, gpu, cpu, memory):
    resources, problems = read_resources(given)
    assert not problems
    assert (resources.gpu, resources.cpu, resources.memory) == (gpu, cpu, memory)


@pytest.mark.parametrize(
    ("given", "whats"),
    [
        ("2 gpus", ["resources_per_worker"]),
        ({"gpus": 2}, ["resources_per_worker.gpus"]),
        ({"gpu": -1, "memory": "10 G"}, ["resources_per_worker.gpu", "resources_per_worker.memory"]),
        ({"gpu": True, "cpu": False}, ["resources_per_worker.gpu", "resources_per_worker.cpu"]),
        ({"gpu": "two"}, ["resources_per_worker.gpu"]),
    ],
)
def test_what_is_no_amount_is_refused_by_name(given, whats):
    assert [problem.what for problem in read_resources(given)[1]] == whats
    with pytest.raises(UserError) as caught:
        read_place("torch-distributed", "image", "volume", "nvidia.com/gpu", given, {}, None)
    assert [problem.what for problem in caught.value.problems] == whats


def test_each_process_has_a_gpu_of_its_own_or_none_has():
    (problem,) = check_resources({"gpu": 4}, "trainjob", 2, {})
    assert (problem.what, problem.given) == ("resources_per_worker.gpu", "4")
    assert problem.allowed.startswith("2, one for each process (num_procs_per_worker)")
    for gpu in (0, 2):
        assert not check_resources({"gpu": gpu}, "trainjob", 2, {})


def test_an_amount_is_given_once():
    problems = check_resources({"cpu": 5, "memory": "10G"}, "trainjob", 1, {"cpu": "4", "memory": "8Gi"})
    assert [problem.what for problem in problems] == ["resources_per_worker.cpu", "resources_per_worker.memory"]
    assert problems[0].given == "5, with 4 in trainjob"
    assert not check_resources({"cpu": 5}, "trainjob", 1, {"memory": "8Gi"})


def test_everything_that_a_step_s_own_pod_cannot_do_is_said_at_once():
    problems = check_place("process", *AT, 2, 2, {"gpu": 4, "cpu": 1})
    assert [problem.what for problem in problems] == [
        "num_workers",
        "resources_per_worker",
    ]
    assert problems[0].given == "2, with launcher process"
    assert problems[0].mend == "Set launcher to trainjob, or num_workers to 1."
    assert not check_place("process", *AT, 1, 2, {})
    (problem,) = check_place("ray", *AT, 1, 1, {})
    assert problem.what == "launcher"


def test_a_training_on_cpus_asks_for_no_gpu_and_amounts_go_to_the_pods():
    request = read_place("r", "image", "volume", "nvidia.com/gpu", {"gpu": 0, "cpu": 5}, {"memory": "8Gi"}, None)
    assert (request.accelerator, request.settings.cpu, request.settings.memory) == ("", "5", "8Gi")
    request = read_place("r", "image", "volume", "nvidia.com/gpu", {"memory": "10G"}, {}, None)
    assert (request.accelerator, request.settings.memory) == ("nvidia.com/gpu", "10G")
