"""Rows of every kind become tokens: which columns, which turns, what counts in the loss, and what is refused."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
import tiny
from bombs import one_value_for_all_rows
from chat_families import tokenizer_of
from given import Given, start
from hypothesis import given, settings
from hypothesis import strategies as st

from kfp_finetune.chat import IGNORED, Encoded, Message, encode, encode_texts, load_tokenizer
from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset
from kfp_finetune.components.torchtune_train.conversations import Shape, conversation, find_shape
from kfp_finetune.components.torchtune_train.parts import open_parts
from kfp_finetune.components.torchtune_train.samples import samples
from kfp_finetune.components.torchtune_train.settings import DataSettings
from kfp_finetune.components.torchtune_train.tokens import TokenCounts, tokenize
from kfp_finetune.errors import UserError

CHAT = Shape("chat", {"messages": "messages"})
ASK = {"role": "user", "content": "red"}
ANSWER = {"role": "assistant", "content": "blue"}
SYSTEM = {"role": "system", "content": "be brief"}
RESULT = {"role": "tool", "content": "x"}
ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}


def calling(arguments: Any, name: str = "add") -> dict[str, Any]:
    """An assistant's turn that calls a function."""
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizer")
    tiny.write_tokenizer(directory)
    return directory


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Given:
    return start(tmp_path_factory.mktemp("world"))


def write(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def tokens_of(
    directory: Path, model: Path, target: Path, max_seq_len: int = 1000, **values: Any
) -> tuple[TokenCounts, datasets.Dataset]:
    data = DataSettings(**{"held_out": "test"} | values)
    if data.held_out == "test" and not list(directory.rglob("test.*")):
        first = next(path for path in sorted(directory.rglob("*")) if path.is_file())
        shutil.copy(first, directory / f"test{first.suffix}")
    with open_parts(directory, data) as parts:
        counts, _ = tokenize(parts.train, load_tokenizer(model), parts.shape, data, max_seq_len, target)
    return counts, datasets.load_from_disk(str(target))


def texts(rows: datasets.Dataset, model: Path) -> list[tuple[str, str]]:
    """Each row's text, and what of it counts in the loss."""
    decode = load_tokenizer(model).decode
    return [(decode(row["tokens"]), decode([label for label in row["labels"] if label != IGNORED])) for row in rows]


SHAPES: dict[str, tuple[list[str], dict[str, Any], Shape]] = {
    "input": (["input", "output"], {}, Shape("instruct", {"input": "input", "output": "output"})),
    "mapped": (["q", "output"], {"column_map": {"input": "q"}}, Shape("instruct", {"input": "q", "output": "output"})),
    "alpaca": (
        ["instruction", "input", "output", "text"],
        {},
        Shape("instruct", {"instruction": "instruction", "input": "input", "output": "output"}),
    ),
    "alpaca, no context": (
        ["instruction", "output"],
        {},
        Shape("instruct", {"instruction": "instruction", "output": "output"}),
    ),
    "alpaca, mapped": (
        ["task", "given", "output"],
        {"column_map": {"instruction": "task", "input": "given"}},
        Shape("instruct", {"instruction": "task", "input": "given", "output": "output"}),
    ),
    "a map is no alpaca": (
        ["instruction", "input", "output"],
        {"column_map": {"input": "instruction"}},
        Shape("instruct", {"input": "instruction", "output": "output"}),
    ),
    "messages": (["id", "messages"], {}, CHAT),
    "conversations": (["conversations", "input", "output"], {}, Shape("chat", {"messages": "conversations"})),
    "chat, mapped": (["turns"], {"column_map": {"messages": "turns"}}, Shape("chat", {"messages": "turns"})),
    "tools": (["messages", "tools"], {}, Shape("chat", {"messages": "messages", "tools": "tools"})),
    "tools, mapped": (
        ["messages", "functions"],
        {"column_map": {"tools": "functions"}},
        Shape("chat", {"messages": "messages", "tools": "functions"}),
    ),
    "text": (["text"], {}, Shape("completion", {"text": "text"})),
    "xml": (["xml"], {}, Shape("completion", {"text": "xml"})),
    "text, mapped": (["id", "body"], {"column_map": {"text": "body"}}, Shape("completion", {"text": "body"})),
    "text, asked for": (["id", "text"], {"dataset_type": "completion"}, Shape("completion", {"text": "text"})),
    "instruct, asked for": (
        ["messages", "input", "output"],
        {"dataset_type": "instruct"},
        Shape("instruct", {"input": "input", "output": "output"}),
    ),
}


@pytest.mark.parametrize(("names", "values", "shape"), SHAPES.values(), ids=SHAPES.keys())
def test_the_kind_of_rows_follows_from_columns_and_settings(names: list[str], values: dict[str, Any], shape: Shape):
    assert find_shape(names, DataSettings(**values)) == shape


@pytest.mark.parametrize(
    ("names", "values", "problems"),
    [
        (["question", "answer"], {}, ["column_map.input", "column_map.output"]),
        (["text", "date"], {}, ["column_map.input", "column_map.output"]),
        (["input", "output"], {"dataset_type": "chat"}, ["column_map.messages"]),
        (["input", "output"], {"dataset_type": "completion"}, ["column_map.text"]),
        (["messages"], {"column_map": {"messages": "turns"}}, ["column_map.messages"]),
        (["messages"], {"column_map": {"tools": "functions"}}, ["column_map.tools"]),
        (["a", "output"], {"column_map": {"instruction": "a", "input": "b"}}, ["column_map.input"]),
        (["text"], {"new_system_prompt": "be brief"}, ["new_system_prompt"]),
        (["messages"], {"dataset_type": "chat", "column_map": {"input": "messages"}}, ["column_map.input"]),
    ],
)
def test_columns_that_are_not_there_are_refused_with_those_that_are(
    names: list[str], values: dict[str, Any], problems: list[str]
):
    with pytest.raises(UserError) as caught:
        find_shape(names, DataSettings(**values))
    assert [problem.what for problem in caught.value.problems] == problems
    assert "new_system_prompt" in problems or "dataset_type" in str(caught.value)
    if caught.value.problems[0].allowed.startswith("one of"):
        assert caught.value.problems[0].allowed == f"one of {', '.join(names)}"


def test_alpacas_context_goes_below_the_instruction_if_there_is_one(tmp_path: Path, model: Path):
    rows = [{"instruction": "add", "input": text, "output": "3"} for text in ("1 2", "", "  ", None)]
    write(tmp_path / "data" / "rows.jsonl", rows)
    _, tokens = tokens_of(tmp_path / "data", model, tmp_path / "tokens")
    prompts = [text.partition("user\n")[2].partition("<|im_end|>")[0] for text, _ in texts(tokens, model)]
    assert prompts == ["add\n\n1 2", "add", "add", "add"]


def test_both_ways_to_write_a_conversation_give_the_same_tokens(tmp_path: Path, model: Path):
    turns = [("system", "be brief"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    openai = [{"role": role, "content": text} for role, text in turns]
    sharegpt = [{"from": names[role], "value": text} for role, text in turns]
    write(tmp_path / "a" / "rows.jsonl", [{"messages": openai}])
    write(tmp_path / "b" / "rows.jsonl", [{"conversations": sharegpt}])
    datasets.Dataset.from_list([{"messages": openai}]).to_parquet(tmp_path / "c" / "rows.parquet")
    read = [texts(tokens_of(tmp_path / name, model, tmp_path / f"to-{name}")[1], model) for name in "abc"]
    assert read[0] == read[1] == read[2]
    assert read[0][0][1] == "b<|im_end|>\nd<|im_end|>\n"
    whole = load_tokenizer(model).apply_chat_template(openai, tokenize=False)
    assert read[0][0][0] == whole


def spoken(turns: list[dict[str, Any]], **values: Any) -> list[Message]:
    return list(conversation({"messages": turns}, "row 0", CHAT, DataSettings(**values)).messages)


def test_user_turns_count_too_where_they_are_to_be_trained_on():
    messages = spoken([SYSTEM, ASK, ANSWER], train_on_input=True)
    assert [message.counts for message in messages] == [False, True, True]


@pytest.mark.parametrize(("turns", "system"), [([ASK, ANSWER], "mine"), ([SYSTEM, ASK, ANSWER], "be brief")])
def test_the_system_prompt_is_put_before_unless_there_is_one(turns: list[dict], system: str):
    messages = spoken(turns, new_system_prompt="mine")
    assert [(message.role, message.content) for message in messages if message.role == "system"] == [("system", system)]
    assert messages[0].role == "system"


REFUSED: dict[str, tuple[Any, str]] = {
    "nothing": (None, "whose messages is None"),
    "text": ("red", "whose messages is 'red'"),
    "no turn": ([], "whose messages is []"),
    "no answer": ([ASK], "whose turns are user;"),
    "system alone": ([SYSTEM], "whose turns are system;"),
    "an answer first": ([ANSWER, ASK, ANSWER], "whose turns are assistant, user, assistant;"),
    "two questions": ([ASK, ASK, ANSWER], "whose turns are user, user, assistant;"),
    "two answers": ([ASK, ANSWER, ANSWER], "whose turns are user, assistant, assistant;"),
    "a late system message": ([ASK, SYSTEM, ANSWER], "whose turns are user, system, assistant;"),
    "a tool's turn": ([ASK, {"role": "tool", "content": "x"}, ANSWER], "whose turns are user, tool, assistant;"),
    "a ShareGPT tool": ([{"from": "observation", "value": "x"}], "whose turn 0 (from 0) has the role 'observation'"),
    "a call of nothing": (
        [ASK, ANSWER | {"tool_calls": [{"id": "1"}]}],
        "turn 1 (from 0) has tool_calls [{'id': '1'}]",
    ),
    "a call that is none": ([ASK, ANSWER | {"tool_calls": "add"}], "whose turn 1 (from 0) has tool_calls 'add'"),
    "arguments that are none": ([ASK, calling("{x")], "whose turn 1 (from 0) has tool_calls [{'type'"),
    "arguments in a list": ([ASK, calling("[1]")], "whose turn 1 (from 0) has tool_calls [{'type'"),
    "a call and no result": ([ASK, calling({}), ASK], "whose turns are user, assistant, user;"),
    "two answers to a call": ([ASK, calling({}), RESULT, ANSWER, ANSWER], "whose turns are user, assistant, tool, "),
    "a result of a user": ([ASK | {"tool_call_id": "1"}, ANSWER], "whose turn 0 (from 0) has tool_call_id"),
    "a call by a user": ([ASK | {"tool_calls": calling({})["tool_calls"]}, ANSWER], "turn 0 (from 0) has tool_calls"),
    "a legacy call": ([ASK, ANSWER | {"function_call": {"name": "f"}}], "whose turn 1 (from 0) has function_call"),
    "a user's weight": ([ASK | {"weight": 0}, ANSWER], "whose turn 0 (from 0) has weight"),
    "a user's thoughts": ([ASK | {"reasoning_content": "x"}, ANSWER], "turn 0 (from 0) has reasoning_content"),
    "thoughts in a list": ([ASK, ANSWER | {"reasoning_content": ["x"]}], "turn 1 (from 0) has reasoning_content ['x']"),
    "a heavy answer": ([ASK, ANSWER | {"weight": 2}], "whose turn 1 (from 0) has the weight 2"),
    "no content": ([ASK, {"role": "assistant", "content": None}], "whose turn 1 (from 0) says None"),
    "parts": ([{"role": "user", "content": [{"type": "text", "text": "a"}]}, ANSWER], "turn 0 (from 0) says [{'type'"),
    "a number": ([ASK, {"role": "assistant", "content": 3}], "whose turn 1 (from 0) says 3"),
    "no role": ([{"content": "a"}], "whose turn 0 (from 0) has the role None"),
    "a turn of text": (["red", "blue"], "whose turn 0 (from 0) is 'red'"),
    "an object": ({"role": "user", "content": "a"}, "whose messages is {'role'"),
}


@pytest.mark.parametrize(("value", "complaint"), REFUSED.values(), ids=REFUSED.keys())
def test_a_conversation_that_is_none_is_refused_with_its_row(
    value: Any, complaint: str, tmp_path: Path, model: Path
) -> None:
    good = {"messages": [ASK, ANSWER]}
    write(tmp_path / "data" / "rows.jsonl", [good, good, {"messages": value}, good])
    with pytest.raises(UserError) as caught:
        tokens_of(tmp_path / "data", model, tmp_path / "tokens")
    assert len(caught.value.problems) == 1
    assert (
        f"dataset: given row 2 (from 0) of train {'' if complaint.startswith('whose') else 'whose '}{complaint}"
        in str(caught.value)
    )


@pytest.mark.parametrize("value", [None, 3, 0.5, True, ["a"], {"b": "c"}, "x" * 3])
def test_a_value_that_is_not_text_is_refused_with_its_number_in_the_file(value: Any, tmp_path: Path, model: Path):
    rows = [{"input": str(number), "output": "b"} for number in range(20)]
    rows[13]["output"] = value
    write(tmp_path / "data" / "rows.jsonl", rows)
    if isinstance(value, str):
        assert tokens_of(tmp_path / "data", model, tmp_path / "tokens")[0].rows == 20
        return
    write(tmp_path / "data" / "test.jsonl", rows[:1])
    for held_out in "50%", "test":
        data = DataSettings(held_out=held_out)
        complaint = pytest.raises(UserError, match=r"row 13 \(from 0\) of train whose output is ")
        with complaint, open_parts(tmp_path / "data", data) as parts:
            for name, part in ("a", parts.train), ("b", parts.held_out):
                tokenize(part, load_tokenizer(model), parts.shape, data, 100, tmp_path / held_out / name)


def test_a_bomb_that_the_look_could_not_read_is_refused_before_it_is_unpacked(
    tmp_path: Path, world: Given, capfd: pytest.CaptureFixture[str]
):
    one_value_for_all_rows(tmp_path / "rows.parquet")
    found = replace(world, dataset=initialize_dataset(str(tmp_path / "rows.parquet"), str(world.root)))
    assert "rows that need more than 536,870,912 bytes of memory to look at" in capfd.readouterr().out
    with pytest.raises(UserError, match=r"rows\.parquet with rows that need more than 2,147,483,648 bytes") as caught:
        found.plan(dataset_type="completion", column_map={"text": "input"})
    assert len(caught.value.problems) == 1


def test_a_row_that_no_model_can_take_is_refused_unless_the_column_is_not_used(tmp_path: Path):
    (tmp_path / "data").mkdir()
    rows = [{"text": "a", "image": b"x" * 17_000_000}, {"text": "a" * 17_000_000, "image": b""}] * 2
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "data" / "train.parquet")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows[:1] * 2), tmp_path / "data" / "test.parquet")

    def open_split(split: str, held_out: str) -> list[str]:
        data = DataSettings(split=split, held_out=held_out, dataset_type="completion")
        with open_parts(tmp_path / "data", data) as parts:
            return parts.held_out.rows["text"][:]

    assert open_split("test", "50%") == ["a"]
    for split, held_out in ("train", "50%"), ("test", "train"):
        with pytest.raises(UserError, match=r"train, row 1 \(from 0\), a row of more than 16,777,216 bytes"):
            open_split(split, held_out)


def test_of_large_rows_fewer_are_in_memory_at_once(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "data" / "rows.jsonl", [{"text": "red " * 25}] * 100)
    seen: list[int] = []

    def encode_some(tokenizer: Any, given: list[str]) -> list[Encoded]:
        seen.append(len(given))
        return encode_texts(tokenizer, given)

    monkeypatch.setattr("kfp_finetune.components.torchtune_train.tokens.encode_texts", encode_some)
    monkeypatch.setattr("kfp_finetune.tables.BATCH_BYTES", 1100)
    assert tokens_of(tmp_path / "data", model, tmp_path / "tokens")[0].rows == 100
    assert seen == [10] * 10


def test_plain_text_is_neither_changed_nor_put_into_a_template(tmp_path: Path, model: Path):
    lines = ["red stone", "🙂 ü", "", " x "]
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "rows.jsonl", [{"text": line} for line in lines])
    counts, tokens = tokens_of(tmp_path / "data", model, tmp_path / "tokens")
    assert [text for text, _ in texts(tokens, model)] == [f"{line}<|im_end|>" for line in lines if line]
    assert all(row["labels"] == [IGNORED, *row["tokens"][1:]] for row in tokens)
    assert (counts.rows, counts.dropped_rows, counts.empty_outputs) == (3, 1, 1)
    assert counts.label_tokens == counts.tokens - 3


def test_a_begin_token_is_put_before_plain_text_if_the_tokenizer_does_so(tmp_path: Path, model: Path):
    from tokenizers.processors import TemplateProcessing

    tokenizer = load_tokenizer(model)
    begin = tokenizer.convert_tokens_to_ids("<|im_start|>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", begin)]
    )
    tokenizer.save_pretrained(tmp_path / "model")
    write(tmp_path / "data" / "rows.jsonl", [{"text": "red"}])
    _, tokens = tokens_of(tmp_path / "data", tmp_path / "model", tmp_path / "tokens")
    assert texts(tokens, model) == [("<|im_start|>red<|im_end|>", "red<|im_end|>")]


TALKS = {
    "weather": [ASK, calling('{"city": "Ems", "days": 2}', "weather"), RESULT | {"tool_call_id": "1"}, ANSWER],
    "add": [ASK, calling('{"numbers": [1, 2]}'), RESULT, calling({"more": {"ü": "x"}}), RESULT, ANSWER],
    "neither": [ASK, ANSWER],
}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
SCHEMAS = [{"type": "function", "function": {"name": "weather", "description": "now", "parameters": CITY}}, ADD]


def with_objects(talk: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Turns whose calls have their arguments as objects."""
    turns = copy.deepcopy(talk)
    for function in (call["function"] for turn in turns for call in turn.get("tool_calls", ())):
        if isinstance(function["arguments"], str):
            function["arguments"] = json.loads(function["arguments"])
    return turns


@pytest.mark.parametrize("form", ["jsonl", "jsonl, schemas as text", "parquet"])
def test_tools_and_calls_reach_the_template_as_they_are_meant(form: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of("Qwen 2.5")
    tokenizer.save_pretrained(tmp_path / "model")
    schemas = json.dumps(SCHEMAS) if form == "jsonl, schemas as text" else SCHEMAS
    rows = [{"messages": talk, "tools": schemas if name != "neither" else None} for name, talk in TALKS.items()]
    if form == "parquet":
        rows = [row | {"messages": with_objects(row["messages"])} for row in rows]
        datasets.Dataset.from_list(rows).to_parquet(tmp_path / "data" / "rows.parquet")
    else:
        write(tmp_path / "data" / "rows.jsonl", rows)
    counts, tokens = tokens_of(tmp_path / "data", tmp_path / "model", tmp_path / "tokens")
    assert (counts.rows, counts.empty_outputs) == (3, 0)
    for row, (name, talk) in zip(tokens, TALKS.items(), strict=True):
        schemas = SCHEMAS if name != "neither" else None
        expected = tokenizer.apply_chat_template(with_objects(talk), schemas, return_dict=False)
        assert tokenizer.decode(row["tokens"]) == tokenizer.decode(expected)
        counted = tokenizer.decode([label for label in row["labels"] if label != IGNORED])
        assert counted.count("<tool_call>") == sum("tool_calls" in turn for turn in talk)
        assert counted.endswith("blue<|im_end|>\n") and "red" not in counted and "x" not in counted.replace('"x"', "")


@pytest.mark.parametrize("value", ["[{]", "add", {"name": "add"}, [{"name": "add"}], ["add"], 3])
def test_tools_that_are_no_schemas_are_refused_with_their_row(value: Any, tmp_path: Path, model: Path) -> None:
    good = {"messages": [ASK, ANSWER], "tools": None}
    write(tmp_path / "data" / "rows.jsonl", [good, good | {"tools": value}, good])
    with pytest.raises(UserError, match=r"row 1 \(from 0\) of train whose tools is .*function schemas"):
        tokens_of(tmp_path / "data", model, tmp_path / "tokens")


@pytest.mark.parametrize("row", [{"messages": [ASK, ANSWER], "tools": [ADD]}, {"messages": [ASK, calling({})]}])
def test_tools_that_a_template_cannot_write_are_refused_with_their_row(row: Any, tmp_path: Path, model: Path) -> None:
    write(tmp_path / "data" / "rows.jsonl", [{"messages": [ASK, ANSWER]}, row])
    with pytest.raises(UserError, match=r"template without tools, and row 1 \(from 0\) of train"):
        tokens_of(tmp_path / "data", model, tmp_path / "tokens")


@pytest.mark.parametrize("tools", [None, "", " ", [], "[]"])
def test_no_tools_are_no_tools(tools: Any, tmp_path: Path, model: Path) -> None:
    write(tmp_path / "data" / "rows.jsonl", [{"messages": [ASK, ANSWER], "tools": tools}])
    assert tokens_of(tmp_path / "data", model, tmp_path / "tokens")[0].rows == 1


def test_an_answer_of_no_weight_does_not_count(tmp_path: Path, model: Path) -> None:
    last = {"role": "assistant", "content": "last", "weight": 1}
    rows = [{"messages": [ASK, ANSWER | {"weight": 0}, ASK, last]}, {"messages": [ASK, ANSWER | {"weight": 0}]}]
    write(tmp_path / "data" / "rows.jsonl", rows)
    counts, tokens = tokens_of(tmp_path / "data", model, tmp_path / "tokens")
    assert [counted for _, counted in texts(tokens, model)] == ["last<|im_end|>\n"]
    assert (counts.rows, counts.dropped_rows) == (1, 1)


def test_answers_that_a_template_writes_otherwise_in_between_are_rows_of_their_own(tmp_path: Path, capsys: Any):
    tokenizer_of("Qwen 3").save_pretrained(tmp_path / "model")
    thought = ANSWER | {"reasoning_content": "is it blue?"}
    rows = [
        {"messages": [ASK | {"reasoning_content": None}, thought, ASK | {"reasoning_content": ""}, ANSWER]},
        {"messages": [ASK, ANSWER]},
    ]
    write(tmp_path / "data" / "rows.jsonl", rows)
    counts, tokens = tokens_of(tmp_path / "data", tmp_path / "model", tmp_path / "tokens")
    assert (counts.rows, counts.further_rows, counts.dropped_rows) == (3, 1, 0)
    assert "1 of them are rows of their own" in capsys.readouterr().out
    asked, answered = "<|im_start|>user\nred<|im_end|>\n<|im_start|>assistant\n", "blue<|im_end|>\n"
    thoughtless = f"<think>\n\n</think>\n\n{answered}"
    thinking = f"<think>\nis it blue?\n</think>\n\n{answered}"
    assert texts(tokens, tmp_path / "model") == [
        (f"{asked}{answered}{asked}{thoughtless}", thoughtless),
        (f"{asked}{thinking}", thinking),
        (f"{asked}{thoughtless}", thoughtless),
    ]


def test_system_messages_that_a_template_leaves_out_are_counted_and_a_new_one_is_refused(tmp_path: Path, capsys: Any):
    tokenizer_of("Mistral v3").save_pretrained(tmp_path / "model")
    write(tmp_path / "data" / "rows.jsonl", [{"messages": [SYSTEM, ASK, ANSWER]}, {"messages": [ASK, ANSWER]}])
    counts, _ = tokens_of(tmp_path / "data", tmp_path / "model", tmp_path / "tokens")
    assert (counts.rows, counts.lost_system_prompts) == (2, 1)
    assert "leaves out the system message of 1 rows" in capsys.readouterr().out
    with pytest.raises(UserError, match="new_system_prompt: given 'mine', which the model's chat template leaves out"):
        tokens_of(tmp_path / "data", tmp_path / "model", tmp_path / "more", new_system_prompt="mine")


def test_a_template_without_a_system_role_is_refused_once_with_what_to_do(tmp_path: Path):
    tokenizer_of("Gemma").save_pretrained(tmp_path / "model")
    write(tmp_path / "data" / "rows.jsonl", [{"messages": [ASK, ANSWER]}] * 3)
    assert tokens_of(tmp_path / "data", tmp_path / "model", tmp_path / "tokens")[0].rows == 3
    with pytest.raises(UserError, match=r"row 0 \(from 0\) of train, which has one") as caught:
        tokens_of(tmp_path / "data", tmp_path / "model", tmp_path / "more", new_system_prompt="mine")
    assert [problem.mend for problem in caught.value.problems] == [
        "Leave new_system_prompt empty, and take system messages out of the rows."
    ]


KINDS: dict[str, list[Any]] = {
    "instruct": [{"input": "red " * n, "output": "blue " * n} for n in range(1, 40)],
    "chat": [{"messages": [ASK, ANSWER] * n} for n in range(1, 40)],
    "completion": [{"text": "red " * n} for n in range(40)],
}


@pytest.mark.parametrize("longest", [8, 20, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_row_keeps_a_label_and_the_counts_are_right(kind: str, longest: int, tmp_path: Path, model: Path):
    write(tmp_path / "data" / "rows.jsonl", KINDS[kind])
    _, whole = tokens_of(tmp_path / "data", model, tmp_path / "whole", 10_000)
    try:
        counts, tokens = tokens_of(tmp_path / "data", model, tmp_path / "tokens", longest)
    except UserError:
        assert all(row["labels"][:longest] == [IGNORED] * longest for row in whole)
        return
    assert all(len(row["tokens"]) == len(row["labels"]) <= longest for row in tokens)
    assert all(any(label != IGNORED for label in row["labels"][1:]) for row in tokens)
    assert counts.rows == len(tokens) and counts.rows + counts.dropped_rows == len(KINDS[kind])
    assert counts.cut_rows == sum(len(row["tokens"]) > longest for row in whole)
    assert counts.lost_tokens == sum(max(0, len(row["tokens"]) - longest) for row in whole)
    assert counts.tokens == sum(len(row["tokens"]) for row in tokens)
    assert counts.label_tokens == sum(label != IGNORED for row in tokens for label in row["labels"])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_held_out_as_a_share_or_as_a_split(kind: str, tmp_path: Path, world: Given):
    write(tmp_path / "data" / "train.jsonl", KINDS[kind])
    write(tmp_path / "data" / "test.jsonl", KINDS[kind][:4])
    found = replace(world, dataset=initialize_dataset(str(tmp_path / "data"), str(world.root)))
    for held_out, rows in ("test", 4), ("10%", 4):
        plan = found.plan(held_out=held_out, batch_size=1).plan
        assert plan.held_out["rows"] + plan.held_out["dropped_rows"] == rows
        training = found.root / plan.training
        assert kind in (training / "data.html").read_text()
        prompts = json.loads((training / "samples.json").read_text())
        assert prompts or held_out == "10%"
        assert all(prompt.keys() == {"prompt", "expected", "prompt_ids"} for prompt in prompts)


@pytest.mark.parametrize(("train", "test"), [("instruct", "chat"), ("chat", "completion"), ("completion", "instruct")])
def test_held_out_rows_of_another_kind_are_refused(train: str, test: str, tmp_path: Path):
    write(tmp_path / "train.jsonl", KINDS[train])
    write(tmp_path / "test.jsonl", KINDS[test])
    with pytest.raises(UserError, match=f"taken for {train} rows"), open_parts(tmp_path, DataSettings(held_out="test")):
        pass


def sampled(row: dict[str, Any], model: Path, tmp_path: Path, max_seq_len: int = 100) -> list[dict[str, Any]]:
    write(tmp_path / "rows.jsonl", [row, row])
    with open_parts(tmp_path, DataSettings()) as parts:
        return samples(parts.held_out, load_tokenizer(model), parts.shape, DataSettings(), max_seq_len, 3)


def test_a_sample_of_a_conversation_is_all_before_its_last_answer(tmp_path: Path, model: Path):
    turns = [SYSTEM, ASK, ANSWER, {"role": "user", "content": "green"}, {"role": "assistant", "content": "last"}, ASK]
    (sample,) = sampled({"messages": turns}, model, tmp_path)
    assert (sample["prompt"], sample["expected"]) == ("user: red\nassistant: blue\nuser: green", "last")
    expected = load_tokenizer(model).apply_chat_template(turns[:4], add_generation_prompt=True, tokenize=False)
    assert load_tokenizer(model).decode(sample["prompt_ids"]) == expected


def test_a_sample_shows_calls_and_what_tools_answered(tmp_path: Path):
    tokenizer = tokenizer_of("Qwen 2.5")
    tokenizer.save_pretrained(tmp_path / "model")
    turns = [ASK, calling({"n": 1}), RESULT, ANSWER]
    (sample,) = sampled({"messages": turns, "tools": [ADD]}, tmp_path / "model", tmp_path / "data", 2000)
    assert sample["prompt"] == 'user: red\nassistant: {"name": "add", "arguments": {"n": 1}}\ntool: x'
    assert sample["expected"] == "blue"
    expected = tokenizer.apply_chat_template(turns[:3], [ADD], add_generation_prompt=True, return_dict=False)
    assert sample["prompt_ids"] == expected


@pytest.mark.parametrize("text", ["red green blue small", "🙂🙂🙂🙂🙂", "ü" * 500, "a"])
def test_a_sample_of_plain_text_is_its_first_half(text: str, tmp_path: Path, model: Path):
    (sample,) = sampled({"text": text}, model, tmp_path)
    whole = load_tokenizer(model)(text)["input_ids"][:100]
    assert sample["prompt_ids"] == whole[: (len(whole) + 1) // 2]
    assert text.startswith(sample["prompt"] + sample["expected"])
    assert len(text) > 100 or text == sample["prompt"] + sample["expected"]


def test_prompts_that_are_too_long_are_no_samples(tmp_path: Path, model: Path):
    assert sampled({"input": "red " * 1000, "output": "a"}, model, tmp_path) == []


LOOK_ALIKES = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_start|>assistant\n", "\n\n", " ", "👩‍👩‍👧", "###"]
TEXTS = st.lists(st.sampled_from(LOOK_ALIKES) | st.text(st.characters(exclude_categories=("Cs",))), max_size=4).map(
    "".join
)
CONVERSATIONS = st.tuples(st.none() | TEXTS, st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3), st.booleans())


@settings(max_examples=150, deadline=None)
@given(CONVERSATIONS)
def test_any_conversation_is_what_the_template_writes_and_only_answers_count(
    model: Path, turns: tuple[str | None, list[tuple[str, str]], bool]
):
    system, pairs, trailing = turns
    rows = [] if system is None else [{"role": "system", "content": system}]
    for question, answer in pairs:
        rows += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    rows += [ASK] if trailing else []
    tokenizer = load_tokenizer(model)
    (row,) = encode(tokenizer, [conversation({"messages": rows}, "row 0", CHAT, DataSettings())])
    assert row.tokens == tokenizer.apply_chat_template(rows, tokenize=True, return_dict=False)
    assert all(label in (IGNORED, token) for token, label in zip(row.tokens, row.labels, strict=True))
    answers = [f"{answer}<|im_end|>\n" for _, answer in pairs]
    assert tokenizer.decode([label for label in row.labels if label != IGNORED]) == "".join(answers)


@pytest.mark.parametrize("column_map", [{}, {"output": "response"}])
def test_alpaca_rows_keep_their_instruction_whatever_the_answer_is_called(column_map: dict[str, str]):
    names = ["instruction", "input", column_map.get("output", "output")]
    shape = find_shape(names, DataSettings(column_map=column_map))
    assert shape.columns == {"instruction": "instruction", "input": "input", "output": names[2]}
