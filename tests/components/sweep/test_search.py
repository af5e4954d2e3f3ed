"""The space that a sweep searches: what is wrong with it, and what is drawn from it."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kfp_finetune.components.sweep.aim import falls, read_aim
from kfp_finetune.components.sweep.search import MOST_TRIALS, SEARCHABLE, Search, draw, read_search, with_values
from kfp_finetune.components.torchtune_train.settings import check_values

CHOICES: dict[str, list[Any]] = {
    "learning_rate": [1e-5, 1e-4, 3e-4, 1e-3],
    "lora_rank": [4, 8, 16],
    "method": ["full", "lora", "dora"],
    "packed": [False, True],
    "lora_attn_modules": [["q_proj"], ["q_proj", "v_proj"]],
    "weight_decay": [0, 0.1],
}
RANGES: dict[str, tuple[float, float]] = {
    "learning_rate": (1e-6, 1e-2), "epochs": (1, 40), "lora_rank": (1, 256), "lora_dropout": (0, 0.9),
    "warmup_ratio": (0, 1),
}  # fmt: skip


@st.composite
def ranges(draw_: st.DrawFn, name: str) -> dict[str, Any]:
    low, high = RANGES[name]
    numbers = st.integers(int(low), int(high)) if isinstance(high, int) and high > 1 else st.floats(low, high)
    ends = sorted(draw_(st.lists(numbers, min_size=2, max_size=2, unique=True)))
    return {"min": ends[0], "max": ends[1], "log": ends[0] > 0 and draw_(st.booleans())}


@st.composite
def spaces(draw_: st.DrawFn) -> dict[str, Any]:
    names = draw_(st.lists(st.sampled_from(sorted({*CHOICES, *RANGES})), min_size=1, max_size=4, unique=True))
    return {name: draw_(_dimension(name)) for name in names}


def _dimension(name: str) -> st.SearchStrategy[Any]:
    lists = st.lists(st.sampled_from(CHOICES.get(name, [1])), min_size=1, unique_by=json.dumps)
    return st.one_of(*([lists] if name in CHOICES else []), *([ranges(name)] if name in RANGES else []))


def read(space: Any, samples: Any = 0, seed: Any = 0, **advanced: Any) -> Search:
    search, problems = read_search(space, samples, seed, advanced)
    assert not problems, problems
    return search


def wrong(space: Any, samples: Any = 0, seed: Any = 0, **advanced: Any) -> str:
    search, problems = read_search(space, samples, seed, advanced)
    assert problems and not search.space
    return "\n".join(map(str, problems))


@given(spaces(), st.integers(1, 30), st.integers(0, 1000))
def test_draws_lie_within_the_space_and_none_is_there_twice(space: dict[str, Any], samples: int, seed: int):
    drawn = draw(read(space, samples, seed))
    assert 1 <= len(drawn) <= samples
    assert len({json.dumps(one, sort_keys=True) for one in drawn}) == len(drawn)
    for one in drawn:
        assert list(one) == list(space)
        assert check_values(with_values({}, one)) == []
        for name, value in one.items():
            if isinstance(space[name], dict):
                assert space[name]["min"] <= value <= space[name]["max"]
                assert isinstance(value, int) or name not in ("epochs", "lora_rank")
            else:
                assert value in space[name]


@given(spaces(), st.integers(1, 30), st.integers(0, 1000))
def test_the_same_seed_draws_the_same(space: dict[str, Any], samples: int, seed: int):
    assert draw(read(space, samples, seed)) == draw(read(space, samples, seed))


@given(spaces())
def test_without_samples_the_whole_grid_is_tried(space: dict[str, Any]):
    assume(all(isinstance(values, list) for values in space.values()))
    grid = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    assert draw(read(space)) == grid
    assert draw(read(space, MOST_TRIALS)) == grid
    assert all(one in grid for one in draw(read(space, 2)))


def test_another_seed_draws_others():
    space = {"learning_rate": {"min": 1e-5, "max": 1e-3, "log": True}}
    assert draw(read(space, 5, 1)) != draw(read(space, 5, 2))
    grid = {"learning_rate": CHOICES["learning_rate"], "lora_rank": CHOICES["lora_rank"]}
    assert draw(read(grid, 4, 1)) != draw(read(grid, 4, 2))


def test_a_logarithmic_range_gives_each_order_of_magnitude_its_share():
    def rates(**how: bool) -> list[float]:
        space = {"learning_rate": {"min": 1e-6, "max": 1e-2, **how}}
        return [one["learning_rate"] for seed in range(10) for one in draw(read(space, 100, seed))]

    drawn = rates(log=True)
    shares = [sum(low <= rate < 10 * low for rate in drawn) / len(drawn) for low in (1e-6, 1e-5, 1e-4, 1e-3)]
    assert all(0.2 < share < 0.3 for share in shares), shares
    assert sum(rate > 1e-3 for rate in rates()) > 0.85 * len(drawn)


def test_where_fewer_combinations_exist_than_samples_there_are_no_more():
    assert len(draw(read({"epochs": {"min": 1, "max": 3}}, 50))) == 3


def test_whole_numbers_that_kfp_hands_on_as_floats_are_taken_as_such():
    assert draw(read({"lora_rank": [8.0, 16.0]})) == [{"lora_rank": 8}, {"lora_rank": 16}]
    assert all(isinstance(one["epochs"], int) for one in draw(read({"epochs": {"min": 1.0, "max": 9.0}}, 5)))


WRONG = {
    "nothing": ({}, {}, "Say which settings to vary"),
    "no object": ([1], {}, "an object of settings"),
    "a misspelt name": ({"lora_ranc": [8]}, {}, "Did you mean lora_rank?"),
    "a setting of the rows": ({"max_seq_len": [64, 128]}, {}, "losses on other rows could not be compared"),
    "another of the rows": ({"held_out": ["5%", "10%"]}, {}, "losses on other rows could not be compared"),
    "a setting of the machines": ({"num_nodes": [1, 2]}, {}, "settings of the training itself"),
    "a value out of range": ({"learning_rate": [0.1, 2]}, {}, "search.learning_rate: given 2"),
    "a value of another kind": ({"method": ["lora", 5]}, {}, "search.method: given 5"),
    "a value twice": ({"lora_rank": [8, 8.0]}, {}, "each value once"),
    "no values": ({"lora_rank": []}, {}, "a list of values"),
    "one value": ({"lora_rank": 8}, {}, "a list of values"),
    "a range of words": ({"method": {"min": 1, "max": 2}}, {"samples": 2}, "since it is no number"),
    "a range upside down": ({"epochs": {"min": 3, "max": 1}}, {"samples": 2}, "a min below max"),
    "a range beyond": ({"lora_rank": {"min": 0, "max": 8}}, {"samples": 2}, "search.lora_rank: given 0"),
    "half a range": ({"epochs": {"min": 3}}, {"samples": 2}, "search.epochs.max"),
    "a range with more": ({"epochs": {"min": 3, "max": 4, "step": 1}}, {"samples": 2}, "search.epochs.step"),
    "a logarithm of zero": ({"weight_decay": {"min": 0, "max": 1, "log": True}}, {"samples": 2}, "more than 0 with"),
    "a range without samples": ({"epochs": {"min": 3, "max": 4}}, {}, "since a range has no grid"),
    "too large a grid": ({"seed": list(range(101))}, {}, "at most 100 combinations"),
    "no number of samples": ({"seed": [1]}, {"samples": -1}, "samples: given -1"),
    "no seed": ({"seed": [1]}, {"seed": "x"}, "search_seed: given 'x'"),
    "a setting twice": ({"weight_decay": [0.1]}, {"weight_decay": 0.2}, "since search varies it"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_with_what_is_allowed(case: str):
    space, others, told = WRONG[case]
    assert told in wrong(space, **others)


def test_all_that_is_wrong_is_told_at_once():
    told = wrong({"lora_ranc": [8], "epochs": [0], "learning_rate": {"min": 1, "max": 0}}, samples=-1)
    assert [part in told for part in ("lora_ranc", "search.epochs", "a min below max", "samples")] == [True] * 4


def test_settings_are_put_where_a_training_looks_for_them():
    settings = {"epochs": 1, "advanced": {"seed": 1}}
    values = with_values(settings, {"epochs": 2, "weight_decay": 0.5})
    assert values == {"epochs": 2, "advanced": {"seed": 1, "weight_decay": 0.5}}
    assert settings == {"epochs": 1, "advanced": {"seed": 1}}
    assert {"learning_rate", "lora_rank", "epochs", "weight_decay"} <= set(SEARCHABLE)


@pytest.mark.parametrize(
    ("metric", "less"),
    [
        ("loss", True), ("perplexity", True), ("improvement", False), ("arc_easy.acc", False),
        ("wikitext.word_perplexity", True), ("gsm8k.exact_match.strict-match", False), ("my_loss.acc", False),
    ],
)  # fmt: skip
def test_which_side_of_a_figure_is_better_is_told_by_its_name(metric: str, less: bool):
    assert falls(metric) == less
    assert read_aim(metric, "auto", [metric])[0].less_is_better == less
    assert read_aim(metric, "max", [metric])[0].less_is_better is False
    assert read_aim(metric, "min", [metric])[0].less_is_better is True


def test_a_figure_that_there_will_not_be_is_refused():
    assert "loss, perplexity, improvement" in str(read_aim("acc", "auto")[1][0])
    assert "no setting" in str(read_aim("lora_rank", "auto")[1][0])
    assert "'auto', 'min', 'max'" in str(read_aim("loss", "least")[1][0])
