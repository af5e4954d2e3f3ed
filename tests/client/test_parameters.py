"""Parameters of a compiled pipeline: what they are, and what a person typed for them."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kfp import compiler, dsl

from kfp_finetune.client.given import read_given, read_values_file
from kfp_finetune.client.parameters import Parameter, read_parameters
from kfp_finetune.errors import Problem, UserError

PIPELINE = Path(__file__).parents[2] / "pipelines" / "torchtune_finetune" / "pipeline.yaml"
PARAMETERS = {
    parameter.name: parameter
    for parameter in (
        Parameter("model", "STRING", "Folder of the model.", None),
        Parameter("epochs", "NUMBER_INTEGER", "Passes over the rows.", 1.0),
        Parameter("rate", "NUMBER_DOUBLE", "Learning rate.", 0.0),
        Parameter("keep", "BOOLEAN", "Whether to keep it.", False),
        Parameter("columns", "STRUCT", "Names of columns.", {}),
        Parameter("names", "LIST", "Some names.", []),
    )
}


def given(parameters: dict[str, Parameter], assignments: list[str], file: Path | None = None) -> dict[str, Any]:
    return read_given(parameters, read_values_file(file) if file else {}, assignments, lambda values: [])


def test_a_real_pipeline_is_read_with_types_texts_and_defaults() -> None:
    parameters = read_parameters(PIPELINE)
    assert parameters["epochs"] == Parameter("epochs", "NUMBER_INTEGER", "Passes over the training rows.", 1)
    assert parameters["column_map"].type == "STRUCT" and parameters["column_map"].default == {}
    assert parameters["keep_volume"].type == "BOOLEAN" and parameters["keep_volume"].default is True
    assert parameters["learning_rate"].type == "NUMBER_DOUBLE" and not parameters["learning_rate"].required
    assert [name for name, parameter in parameters.items() if parameter.required] == ["dataset", "model"]
    assert all(parameter.description for parameter in parameters.values())


def test_what_was_typed_for_a_real_pipeline_gets_its_types() -> None:
    typed = ["model=/m", "dataset=/d=e", "epochs=3", "learning_rate=3e-4", "train_on_input=TRUE", "overrides={}"]
    assert given(read_parameters(PIPELINE), typed) == {
        "model": "/m",
        "dataset": "/d=e",
        "epochs": 3,
        "learning_rate": 3e-4,
        "train_on_input": True,
        "overrides": {},
    }


def test_a_pipeline_without_parameters_has_none(tmp_path: Path) -> None:
    @dsl.component
    def step() -> None:
        pass

    @dsl.pipeline
    def without() -> None:
        step()

    compiler.Compiler().compile(without, str(tmp_path / "pipeline.yaml"))
    assert read_parameters(tmp_path / "pipeline.yaml") == {}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"a text",
        b"- a\n- b\n",
        b"root: 5\n",
        b"root:\n",
        b"components: {}\n",
        b"root: {inputDefinitions: {parameters: {a: {}}}}\n",
        b"root: {inputDefinitions: {parameters: [a]}}\n",
        b"a: [b\n",
        b"apiVersion: v1\nkind: Pod\nspec: {}\n",
        b"\xff\xfe\x00\x93binary",
    ],
)
def test_any_other_file_is_refused_by_its_path(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"pipeline\.yaml; allowed: a compiled pipeline"):
        read_parameters(path)


@pytest.mark.parametrize("path", [Path("/absent/pipeline.yaml"), Path(__file__).parent])
def test_no_file_is_refused_by_its_path(path: Path) -> None:
    with pytest.raises(UserError, match="a compiled pipeline"):
        read_parameters(path)


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("model= a b ", " a b "),
        ("model=a=b", "a=b"),
        ("model=5", "5"),
        ("epochs=5", 5),
        ("epochs=-1", -1),
        ("rate=5", 5.0),
        ("rate=1e-5", 1e-5),
        ("keep=true", True),
        ("keep=False", False),
        ('columns={"input": "q", "n": [1]}', {"input": "q", "n": [1]}),
        ('names=["a", {"b": 1}]', ["a", {"b": 1}]),
    ],
)
def test_a_text_becomes_a_value_of_the_type(assignment: str, value: Any) -> None:
    values = given(PARAMETERS, ["model=m", assignment])
    name = assignment.partition("=")[0]
    assert values == {"model": "m", name: value}
    assert type(values[name]) is type(value)


@pytest.mark.parametrize(
    ("assignment", "wanted"),
    [
        ("epochs=", "a whole number"),
        ("epochs=1.5", "a whole number"),
        ("epochs=many", "a whole number"),
        ("rate=high", "a number"),
        ("rate=nan", "a number"),
        ("rate=inf", "a number"),
        ("keep=yes", "true or false"),
        ("keep=1", "true or false"),
        ("keep=", "true or false"),
        ("columns=[]", "a JSON object"),
        ("columns={", "a JSON object"),
        ("columns=input", "a JSON object"),
        ("columns=null", "a JSON object"),
        ("names={}", "a JSON list"),
        ("names=a,b", "a JSON list"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_wanted_and_what_it_means(assignment: str, wanted: str) -> None:
    name, _, text = assignment.partition("=")
    with pytest.raises(UserError) as caught:
        given(PARAMETERS, ["model=m", assignment])
    message = f"  - {name}: given {text!r}; allowed: {wanted}.\n      {PARAMETERS[name].description}"
    assert str(caught.value) == f"1 problem with what was given:\n{message}"


@pytest.mark.parametrize(("name", "meant"), [("epoch", "epochs"), ("Model", "model"), (" model", "model")])
def test_an_unknown_name_is_refused_with_the_one_that_is_meant(name: str, meant: str) -> None:
    with pytest.raises(UserError) as caught:
        given(PARAMETERS, ["model=m", f"{name}=1"])
    assert "but the pipeline has no such parameter" in str(caught.value)
    assert f"Did you mean {meant}?" in str(caught.value) and "keep" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "temperature", "zzz"])
def test_an_unknown_name_that_resembles_none_is_refused_with_all_of_them(name: str) -> None:
    with pytest.raises(UserError) as caught:
        given(PARAMETERS, ["model=m", f"{name}=1"])
    assert "no such parameter; allowed: model, epochs, rate, keep, columns, names." in str(caught.value)
    assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize("assignment", ["model", ""])
def test_what_is_no_assignment_is_refused(assignment: str) -> None:
    with pytest.raises(UserError, match=rf"--set: given '{assignment}'; allowed: NAME=VALUE"):
        given(PARAMETERS, ["model=m", assignment])


def test_every_problem_is_in_one_message() -> None:
    with pytest.raises(UserError) as caught:
        given(PARAMETERS, ["epoch=1", "rate=high", "keep=true", "columns=5"])
    assert [problem.what for problem in caught.value.problems] == ["epoch", "rate", "columns", "model"]
    assert caught.value.problems[-1].given == "nothing"


def test_a_file_gives_values_and_what_is_typed_goes_before_them(tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text("model: org/name\nepochs: 3\nrate: 1\ncolumns: {input: q}\nnames: [a]\nkeep: true\n")
    values = given(PARAMETERS, ["epochs=5"], file)
    assert values == {
        "model": "org/name",
        "epochs": 5,
        "rate": 1.0,
        "columns": {"input": "q"},
        "names": ["a"],
        "keep": True,
    }
    assert type(values["rate"]) is float


@pytest.mark.parametrize(("line", "value"), [("rate: 1e-4", 1e-4), ("rate: '2'", 2.0), ("columns: {1: a}", {"1": "a"})])
def test_what_yaml_reads_as_another_type_is_meant_all_the_same(tmp_path: Path, line: str, value: Any) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(line + "\n")
    values = given(PARAMETERS, ["model=m"], file)
    assert values == {"model": "m", line.partition(":")[0]: value}


@pytest.mark.parametrize(
    ("name", "value", "plain"),
    [
        ("rate", np.float64(0.5), 0.5),
        ("rate", np.float32(0.5), 0.5),
        ("rate", np.int64(2), 2.0),
        ("epochs", np.int64(2), 2),
        ("keep", np.True_, True),
        ("model", np.str_("other"), "other"),
        ("columns", {"a": [np.int64(1), np.float32(0.5)]}, {"a": [1, 0.5]}),
    ],
)
def test_numbers_of_numpy_are_numbers(name: str, value: Any, plain: Any) -> None:
    read = read_given(PARAMETERS, {"model": "m", name: value}, [], lambda values: [])[name]
    assert read == plain and type(read) is type(plain)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rate", np.float32("nan")),
        ("rate", np.array([0.5, 1.0])),
        ("rate", 10**400),
        ("rate", "high"),
        ("rate", "nan"),
        ("rate", True),
        ("epochs", np.float64(1.5)),
        ("epochs", "2"),
        ("columns", {"day": date(2025, 1, 1)}),
        ("columns", {"share": float("nan")}),
        ("names", [{1, 2}]),
    ],
)
def test_what_no_parameter_can_carry_is_refused(name: str, value: Any) -> None:
    with pytest.raises(UserError) as caught:
        read_given(PARAMETERS, {"model": "m", name: value}, [], lambda values: [])
    assert [problem.what for problem in caught.value.problems] == [name]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("model: 5", "model: given 5; allowed: text"),
        ("epochs: 1.5", "epochs: given 1.5; allowed: a whole number"),
        ("epochs: true", "epochs: given True; allowed: a whole number"),
        ("rate: .nan", "rate: given nan; allowed: a number"),
        ("keep: 1", "keep: given 1; allowed: true or false"),
        ("columns: []", "columns: given []; allowed: a JSON object"),
        ("names: a", "names: given 'a'; allowed: a JSON list"),
        ("epoch: 1", "epoch: given a value, but the pipeline has no such parameter"),
    ],
)
def test_a_wrong_value_in_a_file_is_refused_as_a_typed_one(tmp_path: Path, line: str, wanted: str) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(line + "\n")
    with pytest.raises(UserError, match=wanted.replace("[", r"\[")):
        given(PARAMETERS, ["keep=true"] if line.startswith("model") else ["model=m"], file)


@pytest.mark.parametrize("content", ["- a\n", "text", "a: [b\n"])
def test_a_file_of_anything_else_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(content)
    with pytest.raises(UserError, match="--file: given"):
        given(PARAMETERS, ["model=m"], file)


def test_what_the_check_finds_is_told_beside_the_rest() -> None:
    def check(values: Mapping[str, Any]) -> list[Problem]:
        return [Problem(name, "it", "other", "Change it.") for name in values]

    with pytest.raises(UserError) as caught:
        read_given(PARAMETERS, {}, ["epochs=1", "rate=x"], check)
    assert [problem.what for problem in caught.value.problems] == ["rate", "model", "epochs"]


def test_an_empty_text_is_nothing_for_a_parameter_that_must_be_given() -> None:
    with pytest.raises(UserError, match="model: given nothing"):
        given(PARAMETERS, ["model="])


def test_a_required_parameter_with_a_wrong_value_is_one_problem() -> None:
    required = {"count": Parameter("count", "NUMBER_INTEGER", "A count.", None)}
    with pytest.raises(UserError, match="1 problem"):
        given(required, ["count=x"])
