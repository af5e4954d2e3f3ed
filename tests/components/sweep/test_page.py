"""The page that compares trials."""

import re
from dataclasses import replace
from typing import Any

import pytest
from crafted_sweeps import make_comparison

from kfp_finetune.components.sweep.aim import Aim
from kfp_finetune.components.sweep.page import comparison_page
from kfp_finetune.reports.charts import NOTHING, Point, scatter_chart


def ticks(chart: str) -> list[str]:
    return [text.replace("−", "-") for text in re.findall(r"<text[^>]*>([^<]+)</text>", chart)]


def test_the_page_has_a_chart_for_each_setting_and_a_row_for_each_trial_the_best_first():
    page = comparison_page(make_comparison("hf://org/name"))
    assert page.count("<svg") == 3 and "Held-out loss by learning_rate" in page
    rows = re.findall(r'<th scope="row"><div dir="auto">(\d+ ?\(?\w*\)?)</div>', page)
    assert rows == ["4 (best)", "3", "5", "6", "2", "1", "7 (failed)", "8 (failed)"]
    assert "Trial 4 (learning_rate 0.0001, lora_rank 32, method dora) has the lowest held-out loss of 6 of 8" in page
    assert "3.2500" in page and "1.7100" in page and "out of memory\nhf://org/name" in page


def test_the_page_shows_the_figure_that_decided():
    found = make_comparison()
    aim = Aim("arc_easy.acc", less_is_better=False)
    results = [
        replace(result, figures={**result.figures, "arc_easy.acc": 0.125 * n} if result.figures else {})
        for n, result in enumerate(found.results)
    ]
    page = comparison_page(replace(found, sweep=replace(found.sweep, aim=aim), results=results, best=results[5]))
    assert "has the highest arc_easy.acc of 6 of 8 trials: 0.6250" in page and "Arc_easy.acc by lora_rank" in page


def test_a_best_trial_that_is_no_better_than_the_base_is_not_praised():
    found = make_comparison()
    page = comparison_page(replace(found, best=replace(found.best, before=1.5)))
    assert "no better than the base model" in page and 'class="verdict bad"' in page


@pytest.mark.parametrize(
    ("xs", "shown"),
    [
        ([1e-5, 1e-4, 1e-3], ["1e-5", "0.0001", "0.001"]),
        ([4, 8, 16], ["4", "8", "16"]),
        (["lora", "dora"], ["lora", "dora"]),
        ([True, False], ["True", "False"]),
        ([["q_proj"], ["q_proj", "v_proj"]], ["q_proj", "q_proj, v_proj"]),
        ([8], ["8"]),
    ],
)
def test_few_values_are_the_ticks_of_their_axis(xs: list[Any], shown: list[str]):
    chart = scatter_chart([Point(x, 1.0 + n) for n, x in enumerate(xs)], "setting", "loss")
    assert ticks(chart)[: len(shown)] == shown


def test_many_values_over_orders_of_magnitude_lie_on_a_logarithmic_axis():
    rates = [1e-5 * 1.3**n for n in range(20)]
    assert ticks(scatter_chart([Point(x, x) for x in rates], "rate", "loss"))[:2] == ["1e-5", "0.0001"]


def test_what_is_not_finite_is_left_out():
    assert scatter_chart([Point(1, float("nan"))], "rate", "loss") == NOTHING
    assert scatter_chart([Point(1, float("inf")), Point(2, 1.0)], "rate", "loss").count("<use") >= 1
