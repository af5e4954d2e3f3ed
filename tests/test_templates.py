"""Each family's chat template: the tokens are its own, and what counts in the loss are the answers and nothing else."""

import json
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
            found += family.answer.format(said)
        elif turn["role"] == "user" and train_on_input and turn["content"].strip():
            found += family.question.format(said)
    found = found.removeprefix(" ") if below_system else found
    return found + (family.closing if turns[-1]["role"] == "assistant" or train_on_input else "")


def check(name: str, turns: list[dict[str, Any]], tools: Any = (), train_on_input: bool = False) -> Encoded:
    family, tokenizer = FAMILIES[name], tokenizer_of(name)
    asked = conversation(turns, train_on_input, tools)
    (row,) = encode(tokenizer, [asked])
    date = {"date_string": FIXED_DATE} if name == "Llama 3.2" else {}
    assert row.tokens == tokenizer.apply_chat_template(turns, list(tools) or None, return_dict=False, **date)
    counted = counted_text(tokenizer, render(tokenizer, asked), row)
    if train_on_input and family.header:
        counted = counted.replace(family.header, "")
    assert counted == expected_text(family, turns, train_on_input)
    return row


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
    if name != "Qwen 2.5" and not name.startswith("Llama"):
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


def test_a_turn_that_cannot_be_told_from_another_is_refused():
    turns = [SYSTEM, *talk("", "blue", "")]
    with pytest.raises(
        UserError, match=r"begins or ends turn 2 \(from 0\) otherwise once another follows, seen in row 7"
    ):
        encode(tokenizer_of("Mistral v3"), [conversation(turns)])


PIECES = ["red", " ", "\n", "🙂", "[INST]", "[/INST] ", "</s>", "<|im_end|>\n", "<|end|>", "user\n", '"', "\\"]
CHARACTERS = st.characters(exclude_categories=("Cs", "Cc"))
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(CHARACTERS), max_size=4).map("".join)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(list(FAMILIES)), st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3), st.booleans())
def test_any_conversation_is_what_the_template_writes(name: str, pairs: list[tuple[str, str]], system: bool):
    tokenizer, family = tokenizer_of(name), FAMILIES[name]
    turns = ([SYSTEM] if system and family.system != "refused" else []) + talk(
        *(text for pair in pairs for text in pair)
    )
    text = render(tokenizer, conversation(turns))
    (row,) = encode(tokenizer, [conversation(turns)])
    date = {"date_string": FIXED_DATE} if name == "Llama 3.2" else {}
    assert row.tokens == tokenizer.apply_chat_template(turns, return_dict=False, **date)
    assert counted_text(tokenizer, text, row) == expected_text(family, turns, False)
