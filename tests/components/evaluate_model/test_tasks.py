"""Tasks of the real lm-evaluation-harness, with data that comes the way every dataset comes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from arc import parquet, questions
from given import Given, start
from servers.hub import Hub

from kfp_finetune.components.evaluate_model.evaluate import evaluate
from kfp_finetune.components.evaluate_model.settings import check_evaluation
from kfp_finetune.components.evaluate_model.tasks import figure_name, plan_tasks
from kfp_finetune.components.export_model.export import export
from kfp_finetune.components.torchtune_train.planning import make_plan
from kfp_finetune.components.torchtune_train.train import train
from kfp_finetune.errors import UserError
from kfp_finetune.training.gate import OF_EVERY_TRAINING, check_gate
from kfp_finetune.training.plan import Plan
from kfp_finetune.training.planning import Asked

SPLITS = ("train", "validation", "test")


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Given, Plan]:
    """A model that was trained for an epoch."""
    found = start(tmp_path, rows=60)
    plan = found.plan(held_out="10%", learning_rate=2e-2).plan
    train(plan, str(found.root))
    return found, plan


def test_base_and_tuned_are_compared_on_tasks_whose_data_lies_on_the_volume(arc: Hub, trained: tuple[Given, Plan]):
    found, plan = trained
    first = evaluate(plan, str(found.root))
    asked = {"tasks": ["arc_easy"], "limit": 10, "num_fewshot": 1}
    tasks, problems = plan_tasks(asked, str(found.root))
    assert not problems and set(tasks.evaluation["data"]) == {"allenai/ai2_arc ARC-Easy"}
    assert {"arc_easy.acc", "arc_easy.acc_norm", "arc_easy.acc_improvement"} <= set(tasks.figures)
    arc.requests.clear()
    evaluation = evaluate(replace(plan, evaluation=tasks.evaluation), str(found.root))
    assert not arc.requests, "the evaluation reads the volume alone"
    assert (evaluation.loss_after, evaluation.samples) == (first.loss_after, first.samples)
    accuracy = evaluation.benchmarks["arc_easy"]["acc"]
    assert all(0 <= accuracy[which] <= 1 and (accuracy[which] * 10).is_integer() for which in ("base", "tuned"))
    written = json.loads((found.root / plan.training / "evaluation.json").read_text())
    assert written["benchmarks"]["arc_easy"]["acc"] == accuracy
    assert written["perplexity_after"] < written["perplexity_before"]
    page = (found.root / plan.training / "report.html").read_text()
    assert "arc_easy" in page


@pytest.mark.usefixtures("no_interpreter_taken_down")
def test_several_processes_find_what_one_finds(arc: Hub, trained: tuple[Given, Plan]):
    found, plan = trained
    tasks, _ = plan_tasks({"tasks": ["arc_easy"], "limit": 9}, str(found.root))
    plan = replace(plan, evaluation=tasks.evaluation)
    alone = evaluate(plan, str(found.root))
    (found.root / plan.training / "evaluation.json").unlink()
    shared = evaluate(plan, str(found.root), num_procs=2)
    assert shared.loss_after == pytest.approx(alone.loss_after, abs=1e-6)
    assert shared.loss_before == pytest.approx(alone.loss_before, abs=1e-6)
    assert (shared.tokens, shared.samples) == (alone.tokens, alone.samples)
    assert shared.benchmarks == alone.benchmarks


def test_a_gate_bounds_what_a_task_measures(arc: Hub, trained: tuple[Given, Plan]):
    found, plan = trained
    tasks, _ = plan_tasks({"tasks": ["arc_easy"], "limit": 4}, str(found.root))
    known = (*OF_EVERY_TRAINING, *tasks.figures)
    assert not check_gate({"min_arc_easy.acc": 0.5}, known)
    assert check_gate({"min_arc_easy.f1": 0.5}, known)
    plan = replace(plan, evaluation=tasks.evaluation)
    evaluate(plan, str(found.root))
    with pytest.raises(UserError, match=r"min_arc_easy.acc: given arc_easy.acc [\d.]+ in its benchmark, [\d.]+ less"):
        export(plan, "series", str(found.root), gate={"min_arc_easy.acc": 1.1})
    assert export(plan, "series", str(found.root), gate={"min_arc_easy.acc_improvement": -1}).key == plan.key


def test_a_run_that_asks_for_more_tasks_than_were_run_is_needed(arc: Hub, trained: tuple[Given, Plan]):
    found, plan = trained
    evaluate(plan, str(found.root))
    export(plan, "series", str(found.root))

    def planned(evaluation: dict[str, object]) -> str:
        tasks, _ = plan_tasks(evaluation, str(found.root))
        settings = {"dtype": "fp32", "max_seq_len": 128, "batch_size": 4, "learning_rate": 2e-2, "held_out": "10%"}
        args = (found.dataset, found.model, "series", settings, str(found.root))
        outcome = make_plan(*args, asked=Asked(tasks.evaluation))
        assert outcome.plan.key == plan.key
        if outcome.state == "trained":
            evaluate(outcome.plan, str(found.root))
            export(outcome.plan, "series", str(found.root))
        return outcome.state

    assert planned({}) == "done"
    assert planned({"tasks": ["arc_easy"], "limit": 2}) == "trained"
    assert planned({"tasks": ["arc_easy"], "limit": 2}) == "done"
    assert planned({"tasks": ["arc_easy"], "limit": 3}) == "trained"
    assert planned({}) == "done", "tasks that are not asked for any more change nothing"


def test_a_group_stands_for_its_tasks(arc: Hub, tmp_path: Path):
    tasks, problems = plan_tasks({"tasks": ["ai2_arc"]}, str(tmp_path / "workspace"))
    assert not problems
    assert {"arc_easy.acc", "arc_challenge.acc_norm"} <= set(tasks.figures)
    assert set(tasks.evaluation["data"]) == {"allenai/ai2_arc ARC-Easy", "allenai/ai2_arc ARC-Challenge"}


def mirror(directory: Path, number: int, answer: str = "A", splits: tuple[str, ...] = SPLITS) -> Path:
    """A folder with the questions of a configuration, of which the last has a certain answer."""
    directory.mkdir(parents=True)
    rows = [*questions(number - 1), {**questions(1)[0], "answerKey": answer}]
    for split in splits:
        (directory / f"{split}.parquet").write_bytes(parquet(rows))
    return directory


def test_data_may_lie_elsewhere_each_configuration_in_its_place(tmp_path: Path):
    easy, hard = mirror(tmp_path / "easy", 5), mirror(tmp_path / "hard", 7)
    root = str(tmp_path / "workspace")
    tasks, problems = plan_tasks({"tasks": ["arc_easy"], "data": {"allenai/ai2_arc": str(easy)}}, root)
    assert not problems
    assert list(tasks.evaluation["data"]) == ["allenai/ai2_arc ARC-Easy"]
    both = ["arc_easy", "arc_challenge"]
    _, problems = plan_tasks({"tasks": both, "data": {"allenai/ai2_arc": str(easy)}}, root)
    assert "which are different data" in problems[0].given and "allenai/ai2_arc ARC-Challenge" in problems[0].mend
    named = {"allenai/ai2_arc ARC-Easy": str(easy), "allenai/ai2_arc ARC-Challenge": str(hard)}
    tasks, problems = plan_tasks({"tasks": both, "data": named}, root)
    assert not problems
    assert len(set(tasks.evaluation["data"].values())) == 2
    _, problems = plan_tasks({"tasks": ["arc_easy"], "data": {"allenai/ai2_arc": str(easy), "ai2": "/nowhere"}}, root)
    assert [(problem.what, problem.given) for problem in problems] == [("evaluation.data", "'ai2'")]


@pytest.mark.parametrize(
    ("asked", "answer", "splits", "words"),
    [
        ({"num_fewshot": 50}, "A", SPLITS, "Sample larger than population"),
        ({}, "Z", SPLITS, "is not in list"),
        ({}, "A", ("train", "validation"), "'test'"),
    ],
    ids=["too many examples", "a row that is no question", "a split that is missing"],
)
def test_what_would_fail_after_the_training_is_found_before_it(
    asked: dict[str, object], answer: str, splits: tuple[str, ...], words: str, tmp_path: Path
):
    data = {"allenai/ai2_arc": str(mirror(tmp_path / "arc", 6, answer, splits))}
    _, problems = plan_tasks({"tasks": ["arc_easy"], "data": data, **asked}, str(tmp_path / "workspace"))
    assert len(problems) == 1 and problems[0].what == "evaluation.tasks"
    assert words in problems[0].given


def test_fewer_questions_than_processes_are_asked_by_fewer(arc: Hub, trained: tuple[Given, Plan]):
    found, plan = trained
    tasks, _ = plan_tasks({"tasks": ["arc_easy"], "limit": 1}, str(found.root))
    evaluation = evaluate(replace(plan, evaluation=tasks.evaluation), str(found.root), num_procs=2)
    assert evaluation.benchmarks["arc_easy"]["acc"]["base"] in (0.0, 1.0)


def test_a_card_tells_what_was_measured_after_it_was_written(arc: Hub, trained: tuple[Given, Plan]):
    found, plan = trained
    evaluate(plan, str(found.root))
    export(plan, "series", str(found.root))
    card = found.root / "latest/series/README.md"
    assert "arc_easy" not in card.read_text()
    tasks, _ = plan_tasks({"tasks": ["arc_easy"], "limit": 4}, str(found.root))
    evaluate(replace(plan, evaluation=tasks.evaluation), str(found.root))
    export(plan, "series", str(found.root))
    assert "`arc_easy.acc`" in card.read_text() and "the first 4 questions" in card.read_text()
    assert "arc_easy" in (found.root / "latest/series/report.html").read_text()


def test_what_is_asked_of_a_finished_training_is_done_or_refused(trained: tuple[Given, Plan]):
    found, plan = trained
    evaluate(plan, str(found.root))
    export(plan, "series", str(found.root))
    settings = {"dtype": "fp32", "max_seq_len": 128, "batch_size": 4, "learning_rate": 2e-2, "held_out": "10%"}

    def state(**asked: object) -> str:
        return make_plan(found.dataset, found.model, "series", settings, str(found.root), asked=Asked(**asked)).state

    assert state(gate={"max_loss": 100}) == "done"
    assert state(gate={"max_loss": 0.1}) == "trained", "the export step says by how much"
    (found.root / plan.training).rename(found.root / "gone")
    assert state() == "done"
    with pytest.raises(UserError, match="given gate, for an export whose training is gone"):
        state(gate={"max_loss": 100})


def test_all_that_is_wrong_with_the_tasks_is_said_at_once(arc: Hub, tmp_path: Path):
    asked = {"tasks": ["arc_esy", "humaneval", "hellaswag", "arc_easy"]}
    tasks, problems = plan_tasks(asked, str(tmp_path / "workspace"))
    words = "\n".join(f"{problem.given} {problem.mend}" for problem in problems)
    assert "arc_esy: no task" in words and "arc_easy" in words
    assert "humaneval" in words
    assert "hellaswag: hf://Rowan/hellaswag" in words, words
    assert len(problems) == 3
    assert not tasks.evaluation.get("data", {}).keys() - {"allenai/ai2_arc ARC-Easy"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("arc_easy", "an object such as"),
        ({"tasks": "arc_easy"}, "evaluation.tasks"),
        ({"tasks": ["../../etc/passwd"]}, "names of tasks"),
        ({"tasks": ["/tmp/task.yaml"]}, "names of tasks"),
        ({"tasks": ["arc_easy"], "limit": -1}, "evaluation.limit"),
        ({"tasks": ["arc_easy"], "fewshot": 3}, "evaluation.fewshot"),
        ({"limit": 3}, "at least one task"),
    ],
)
def test_what_is_wrong_with_the_parameter_is_known_without_the_harness(given: object, words: str):
    problems = check_evaluation(given)
    assert len(problems) == 1
    assert words in f"{problems[0].what} {problems[0].given} {problems[0].allowed}"


def test_a_figure_says_which_answers_it_counts_where_there_are_several():
    assert figure_name("arc_easy", "acc,none") == "arc_easy.acc"
    assert figure_name("gsm8k", "exact_match,strict-match") == "gsm8k.exact_match.strict-match"
