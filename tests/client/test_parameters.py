"""Parameters of a compiled pipeline: what they are, and what a person typed for them."""

from pathlib import Path
from typing import Any

import pytest
from kfp import compiler, dsl

from kfp_finetune.client.parameters import Parameter, parse_assignments, read_parameters
from kfp_finetune.errors import UserError

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
    assert parse_assignments(read_parameters(PIPELINE), typed) == {
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
        ("model=", ""),
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
    values = parse_assignments(PARAMETERS, ["model=m", assignment])
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
        parse_assignments(PARAMETERS, ["model=m", assignment])
    message = f"  - {name}: given {text!r}; allowed: {wanted}.\n      {PARAMETERS[name].description}"
    assert str(caught.value) == f"1 problem with what was given:\n{message}"


@pytest.mark.parametrize("assignment", ["epoch=1", "model", "", "=1", "Model=m", " model=m"])
def test_an_unknown_name_is_refused_with_those_that_are_known(assignment: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_assignments(PARAMETERS, ["model=m", assignment])
    assert f"--set: given {assignment!r}; allowed: NAME=VALUE with one of {', '.join(PARAMETERS)}." in str(caught.value)


def test_every_problem_is_in_one_message() -> None:
    with pytest.raises(UserError) as caught:
        parse_assignments(PARAMETERS, ["epoch=1", "rate=high", "keep=true", "columns=5"])
    assert [problem.what for problem in caught.value.problems] == ["--set", "rate", "columns", "model"]
    assert caught.value.problems[-1].given == "nothing"


def test_a_required_parameter_with_a_wrong_value_is_one_problem() -> None:
    required = {"count": Parameter("count", "NUMBER_INTEGER", "A count.", None)}
    with pytest.raises(UserError, match="1 problem"):
        parse_assignments(required, ["count=x"])
