"""A model that does not keep its bounds is not exported, and the message says by how much."""

import math

import pytest

from kfp_finetune.training.gate import check_gate, failed_bounds, gate_figures

EVALUATION = {"loss_before": 1.5, "loss_after": 1.2, "figures_after": {"accuracy": 0.8}}


def test_every_figure_can_be_bounded_on_either_side():
    assert gate_figures(EVALUATION) == pytest.approx(
        {"loss": 1.2, "perplexity": math.exp(1.2), "improvement": 0.3, "accuracy": 0.8}
    )
    assert not failed_bounds({"min_improvement": 0.25, "max_loss": 1.2, "min_accuracy": 0.8}, EVALUATION)


def test_each_bound_that_is_not_kept_says_by_how_much():
    problems = failed_bounds({"min_improvement": 0.5, "max_loss": 1.0, "min_accuracy": 0.9}, EVALUATION)
    assert [problem.what for problem in problems] == ["gate.min_improvement", "gate.max_loss", "gate.min_accuracy"]
    assert "improvement 0.3 on the held-out rows, 0.2 less than allowed" in problems[0].given
    assert "loss 1.2 on the held-out rows, 0.2 more than allowed" in problems[1].given
    assert problems[2].allowed == "at least 0.9"


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_model_that_diverged_keeps_no_bound(loss: float):
    evaluation = {"loss_before": 1.5, "loss_after": loss}
    problems = failed_bounds({"max_loss": 10, "min_improvement": -100, "max_perplexity": 1e9}, evaluation)
    assert len(problems) == 3
    assert all("is no number" in problem.given for problem in problems) == math.isnan(loss)


def test_a_figure_that_a_benchmark_did_not_give_keeps_no_bound_and_spoils_no_other():
    benchmarks = {"arc": {"acc": {"base": 0.2, "tuned": 0.4}, "f1": {"base": 0.1, "tuned": None}}}
    problems = failed_bounds({"min_arc.acc": 0.3, "min_arc.f1": 0.3}, EVALUATION | {"benchmarks": benchmarks})
    assert [problem.what for problem in problems] == ["gate.min_arc.f1"]
    assert "was not measured" in problems[0].given


def test_what_cannot_be_a_gate_is_told_before_anything_is_trained():
    problems = check_gate({"min_improvment": 0.1, "max_loss": "1", "loss": 2, "min_f1": 0.5}, ("loss", "improvement"))
    assert [problem.what for problem in problems] == ["gate", "gate.max_loss", "gate", "gate"]
    assert "min_improvement or max_improvement" in problems[0].allowed
    assert check_gate([]) and not check_gate({}) and not check_gate({"max_loss": 2, "min_improvement": 0.1})
