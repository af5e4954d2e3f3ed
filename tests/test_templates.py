"""Each family's chat template: the tokens are its own, and what counts in the loss are the answers and nothing else."""

import copy
import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from chat_families import FAMILIES, TEMPLATES, Family, tokenizer_of
from hypothesis import given, settings
from hypothesis import strategies as st

from kfp_finetune.chat import IGNORED, Conversation, Encoded, Message, encode, encode_prompt, render
from kfp_finetune.errors import UserError

FIXED_DATE = "26 Jul 2024"
SYSTEM = {"role": "system", "content": "be brief"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather <now> of a place",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
ARGUMENTS = {"city": 'Bad "Ems"', "days": [1, 2], "far": {"ü": True}}
CALL = {
    "role": "assistant",
    "tool_calls": [
        {"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}},
    ],
}
RESULT = {"role": "tool", "tool_call_id": "abcdefghi", "name": "weather", "content": '{"sky": "blue"}'}


def talk(*texts: str) -> list[dict[str, Any]]:
    return [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(texts)]


PLAIN = {
    "one turn": talk("red stone", "stone red"),
    "three turns": talk("red", "blue", "green", "small", "large", "round"),
    "blanks": talk("  red\t", " blue ", "green ", "  small\n"),
    "newlines": talk("\n\nred\nstone\n", "\nblue\n\nriver\n\n", "\n", "cloud"),
    "emoji": talk("naïve 🙂\r\n", "👩‍👩‍👧 漢字", "🙂", "🙂"),
    "the same again": talk("red", "red", "red", "red"),
    "look-alikes": talk("[INST] red [/INST]", "### User:\nblue", "user\nred", "model assistant"),
    "questions of nothing": talk("", "blue", " ", "green", "\n", "red"),
    "an empty answer": talk("red", "", "green", "blue"),
    "blank answers": talk("red", "  ", "green", "\n"),
    "an unanswered question": talk("red", "blue", "green"),
}
WITH_TOOLS = {
    "one call": [*talk("red"), CALL, RESULT, {"role": "assistant", "content": "blue"}],
    "a call as the answer": [*talk("red"), CALL],
    "calls in several turns": [*talk("red", "blue", "red"), CALL, RESULT, *talk("", " green ")[1:]],
    "call upon call": [*talk("red"), CALL, RESULT, CALL, RESULT, *talk("", "cloud", "river", "small")[1:]],
    "tools without a call": talk("red", "blue", "red", "green"),
}


def conversation(turns: list[dict[str, Any]], train_on_input: bool = False, tools: Any = ()) -> Conversation:
    counted = ("assistant", "user") if train_on_input else ("assistant",)
    messages = [
        Message(
            turn["role"],
            turn.get("content", ""),
            turn["role"] in counted,
            turn.get("tool_calls", ()),
            {key: turn[key] for key in ("tool_call_id", "name") if key in turn},
        )
        for turn in turns
    ]
    return Conversation(messages, tools, "row 7 of train")


def counted_text(tokenizer: Any, text: str, row: Encoded) -> str:
    """The characters of a text whose tokens count in the loss."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    assert encoded["input_ids"] == row.tokens
    assert all(label in (IGNORED, token) for token, label in zip(row.tokens, row.labels, strict=True))
    found, position = "", 0
    for label, (first, last) in zip(row.labels, encoded["offset_mapping"], strict=True):
        if label != IGNORED:
            found += text[max(first, position) : last]
            position = last
    return found


def expected_text(family: Family, turns: list[dict[str, Any]], train_on_input: bool) -> str:
    found = ""
    below_system = (
        family.template == "llama_2" and turns[0] == SYSTEM and train_on_input and turns[1]["content"][0].strip()
    )
    for turn in turns:
        said = turn.get("content", "")
        said = said.strip() if family.trims or (family.template == "mistral_v3" and turn["role"] != "user") else said
        said = said.lstrip() if family.swallows else said
        if "tool_calls" in turn:
            found += family.call.format(json.dumps(ARGUMENTS, ensure_ascii=False))
        elif turn["role"] == "assistant":
            found += family.answer.format(said.lstrip("\n") if family.forgets else said)
        elif turn["role"] == "user" and train_on_input and turn["content"].strip():
            found += family.question.format(said)
    found = found.removeprefix(" ") if below_system else found
    return found + (family.closing if turns[-1]["role"] == "assistant" or train_on_input else "")


def expected_rows(
    family: Family, turns: list[dict[str, Any]], train_on_input: bool
) -> list[tuple[list[dict[str, Any]], str]]:
    """Each row's turns, and its text that counts."""
    if not family.forgets:
        return [(turns, expected_text(family, turns, train_on_input))]
    answers = [index for index, turn in enumerate(turns) if turn["role"] == "assistant"]
    whole = [turn for turn in turns if turn["role"] != "assistant" or turn is turns[-1]]
    rows = [(turns, expected_text(family, whole, train_on_input))]
    earlier = [index for index in reversed(answers) if index + 1 < len(turns)]
    rows += [(turns[: index + 1], expected_text(family, [turns[index]], False)) for index in earlier]
    return [row for row in rows if row[1]]


def check(name: str, turns: list[dict[str, Any]], tools: Any = (), train_on_input: bool = False) -> Encoded:
    family, tokenizer = FAMILIES[name], tokenizer_of(name)
    rows = encode(tokenizer, [conversation(turns, train_on_input, tools)])
    date = {"date_string": FIXED_DATE} if name == "Llama 3.2" else {}
    for row, (shown, expected) in zip(rows, expected_rows(family, turns, train_on_input), strict=True):
        assert row.tokens == tokenizer.apply_chat_template(shown, list(tools) or None, return_dict=False, **date)
        counted = counted_text(tokenizer, render(tokenizer, conversation(shown, train_on_input, tools)), row)
        if train_on_input and family.header:
            counted = counted.replace(family.header, "")
        assert counted == expected
    return rows[0]


@pytest.mark.parametrize("train_on_input", [False, True], ids=["answers", "questions too"])
@pytest.mark.parametrize("turns", PLAIN.values(), ids=PLAIN.keys())
@pytest.mark.parametrize("name", FAMILIES)
def test_the_tokens_are_the_templates_and_the_labels_the_turns(name: str, turns: list[dict], train_on_input: bool):
    check(name, turns, train_on_input=train_on_input)


@pytest.mark.parametrize("train_on_input", [False, True], ids=["answers", "questions too"])
@pytest.mark.parametrize("question", ["red", " red \n", " "])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_system_prompt_never_counts(name: str, question: str, train_on_input: bool):
    turns = [SYSTEM, *talk(question, " blue", "green", "small")]
    family = FAMILIES[name]
    if family.system == "refused":
        with pytest.raises(UserError, match=r"row 7 of train.*\n.*Leave new_system_prompt empty") as caught:
            check(name, turns, train_on_input=train_on_input)
        assert len(caught.value.problems) == 1
        return
    row = check(name, turns, train_on_input=train_on_input)
    assert row.lacks_system == (family.system == "lost")
    assert (SYSTEM["content"] in render(tokenizer_of(name), conversation(turns))) == (family.system == "written")


@pytest.mark.parametrize("system", [[], [SYSTEM]], ids=["alone", "below a system prompt"])
@pytest.mark.parametrize("turns", WITH_TOOLS.values(), ids=WITH_TOOLS.keys())
@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.call])
def test_calls_count_and_what_tools_answer_does_not(name: str, turns: list[dict], system: list[dict]):
    check(name, [*system, *turns], TOOLS)
    if not name.startswith(("Qwen", "Llama")):
        check(name, [*system, *turns], TOOLS, train_on_input=True)


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if not family.call])
@pytest.mark.parametrize(
    ("turns", "tools"), [(talk("red", "blue"), TOOLS), ([*talk("red"), CALL], []), (WITH_TOOLS["one call"], TOOLS)]
)
def test_a_template_without_tools_is_refused_and_drops_none(name: str, turns: list[dict], tools: list[dict]):
    with pytest.raises(UserError, match="row 7 of train"):
        check(name, turns, tools)


@pytest.mark.parametrize("turns", [*PLAIN.values(), WITH_TOOLS["one call"]])
@pytest.mark.parametrize("name", FAMILIES)
def test_what_counts_begins_where_the_prompt_for_it_ends(name: str, turns: list[dict]):
    tools = TOOLS if turns is WITH_TOOLS["one call"] else []
    if tools and not FAMILIES[name].call:
        return
    tokenizer = tokenizer_of(name)
    (row,) = encode(tokenizer, [conversation(turns[:2], tools=tools)])
    prompt = encode_prompt(tokenizer, conversation(turns[:1], tools=tools))
    if not FAMILIES[name].swallows and not turns[1].get("content", "").startswith(("\n", " ")):
        assert row.tokens[: len(prompt)] == prompt
        assert row.labels[len(prompt) :] == row.tokens[len(prompt) :]
    assert row.labels[: len(prompt)] == [IGNORED] * len(prompt)


def test_the_tokens_do_not_depend_on_the_day():
    text = render(tokenizer_of("Llama 3.2"), conversation(talk("red", "blue")))
    assert text == render(tokenizer_of("Llama 3.1"), conversation(talk("red", "blue")))
    assert f"Today Date: {FIXED_DATE}\n" in text
    tokenizer = tokenizer_of("Llama 3.2")
    assert FIXED_DATE not in tokenizer.apply_chat_template(talk("red"), tokenize=False)
    assert tokenizer.chat_template == (TEMPLATES / "llama_3_2.jinja").read_text()


def test_a_turn_that_does_not_count_is_left_out_of_the_loss():
    asked = conversation(talk("red", "blue", "red", "green"))
    messages = [*asked.messages[:1], Message("assistant", "blue"), *asked.messages[2:]]
    for name in FAMILIES:
        tokenizer, changed = tokenizer_of(name), Conversation(messages)
        counted = counted_text(tokenizer, render(tokenizer, changed), encode(tokenizer, [changed])[0])
        assert counted == expected_text(FAMILIES[name], talk("", "green")[1:], False)


def test_a_turn_that_cannot_be_told_from_another_counts_where_the_conversation_ends_with_it():
    turns = [SYSTEM, *talk("", "blue", "")]
    tokenizer = tokenizer_of("Mistral v3")
    (row,) = encode(tokenizer, [conversation(turns)])
    assert row.tokens == tokenizer.apply_chat_template(turns[:3], return_dict=False)
    assert counted_text(tokenizer, render(tokenizer, conversation(turns[:3])), row) == " blue</s>"


def thinking(thought: str, said: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": f"<think>\n{thought}\n</think>\n\n{said}", **more}


THOUGHTS = {
    "a thought": [*talk("red"), thinking("is it blue?", "blue")],
    "a thought beside the text": [*talk("red"), {**talk("", "\nblue")[1], "reasoning_content": "\nis it blue?\n"}],
    "an empty thought": [*talk("red"), thinking("", "blue")],
    "no line of its own": [*talk("red"), {"role": "assistant", "content": "<think>is it blue?</think>blue"}],
    "a thought that is said": [*talk("red"), thinking("blue", "blue")],
    "no tag before": [*talk("red"), {"role": "assistant", "content": "is it blue?\n</think>\n\nblue"}],
    "thoughts in every turn": [*talk("red"), thinking("one", "blue"), *talk("green"), thinking("two", "small")],
    "a thought before a call": [
        *talk("red"),
        {**CALL, "content": "", "reasoning_content": "ask"},
        RESULT,
        thinking("so", "blue"),
    ],
}


@pytest.mark.parametrize("opening", ["", "<think>\n"], ids=["may think", "must think"])
@pytest.mark.parametrize("turns", THOUGHTS.values(), ids=THOUGHTS.keys())
def test_what_a_model_thinks_counts_as_its_template_writes_it(turns: list[dict[str, Any]], opening: str):
    """Every answer, once, as the model is to write it behind the prompt for it, which may end with the tag."""
    tokenizer = copy.deepcopy(tokenizer_of("Qwen 3"))
    if opening:
        tokenizer.chat_template += "{{- '<think>\n' if add_generation_prompt }}"
    tools = TOOLS if RESULT in turns else []
    messages = [
        replace(message, more={key: turn[key] for key in ("tool_call_id", "name", "reasoning_content") if key in turn})
        for message, turn in zip(conversation(turns).messages, turns, strict=True)
    ]
    found = []
    for row in encode(tokenizer, [Conversation(messages, tools)]):
        decoded = tokenizer.decode(row.tokens)
        shown = next(
            turns[:end]
            for end in range(len(turns), 0, -1)
            if tokenizer.apply_chat_template(turns[:end], tools or None, tokenize=False) == decoded
        )
        assert row.tokens == tokenizer.apply_chat_template(shown, tools or None, return_dict=False)
        found += spans_that_count(row)
    expected = []
    for index in [index for index, turn in enumerate(turns) if turn["role"] == "assistant"]:
        texts = [
            tokenizer.apply_chat_template(shown, tools or None, add_generation_prompt=prompt, return_dict=False)
            for shown, prompt in ((turns[:index], True), (turns[: index + 1], False))
        ]
        assert texts[1][: len(texts[0])] == texts[0]
        expected.append(texts[1][len(texts[0]) :])
    assert sorted(found) == sorted(expected)
    assert all((opening + tokenizer.decode(ids)).startswith("<think>\n") for ids in found)


def spans_that_count(row: Encoded) -> list[list[int]]:
    """The tokens that follow one another and count."""
    spans: list[list[int]] = []
    for before, label in pairwise([IGNORED, *row.labels]):
        if label != IGNORED:
            if before == IGNORED:
                spans.append([])
            spans[-1].append(label)
    return spans


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "Qwen 3"])
def test_other_templates_write_a_thought_as_any_text_or_are_refused(name: str):
    tokenizer = tokenizer_of(name)
    turns = [*talk("red"), thinking("is it blue?", "blue")]
    (row,) = encode(tokenizer, [conversation(turns)])
    counted = counted_text(tokenizer, render(tokenizer, conversation(turns)), row)
    assert counted == expected_text(FAMILIES[name], turns, False) and "is it blue?" in counted
    beside = [Message("user", "red"), Message("assistant", "blue", True, more={"reasoning_content": "is it blue?"})]
    with pytest.raises(UserError, match=r"leaves out what turn 1 \(from 0\) of row 7 thinks"):
        encode(tokenizer, [Conversation(beside, place="row 7")])


def test_without_thinking_the_prompt_ends_where_what_was_trained_goes_on():
    """The prompt of enable_thinking=False is the beginning of a row without thoughts."""
    tokenizer = tokenizer_of("Qwen 3")
    (row,) = encode(tokenizer, [conversation(talk("red", "blue"))])
    prompt = tokenizer.apply_chat_template(
        talk("red"), add_generation_prompt=True, enable_thinking=False, return_dict=False
    )
    assert row.tokens[: len(prompt)] == prompt
    assert tokenizer.decode(row.tokens[len(prompt) :]) == "blue<|im_end|>\n"


PIECES = ["red", " ", "\n", "🙂", "[INST]", "[/INST] ", "</s>", "<|im_end|>\n", "<|end|>", "user\n", '"', "\\"]
CHARACTERS = st.characters(exclude_categories=("Cs", "Cc"))
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(CHARACTERS), max_size=4).map("".join)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(list(FAMILIES)), st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3), st.booleans())
def test_any_conversation_is_what_the_template_writes(name: str, pairs: list[tuple[str, str]], system: bool):
    family = FAMILIES[name]
    turns = ([SYSTEM] if system and family.system != "refused" else []) + talk(
        *(text for pair in pairs for text in pair)
    )
    check(name, turns)
