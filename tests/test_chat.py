"""Training sees the very tokens that inference will, and the loss counts the answer alone."""

from pathlib import Path

import pytest
import tiny

from kfp_finetune.chat import (
    DEFAULT_CHAT_TEMPLATE,
    IGNORED,
    Conversation,
    Encoded,
    Message,
    encode,
    encode_prompt,
    load_tokenizer,
)
from kfp_finetune.errors import UserError

CONVERSATIONS = {
    "one turn": [("user", "red stone"), ("assistant", "stone red")],
    "system prompt": [("system", "be brief"), ("user", "red"), ("assistant", "blue")],
    "two turns": [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")],
    "odd text": [("user", "naïve 🙂\r\n\ttabs  "), ("assistant", " leading space, 漢字, <b>\n\n")],
    "empty answer": [("user", "red"), ("assistant", "")],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizer")
    tiny.write_tokenizer(directory)
    return directory


def asked(name: str, train_on_input: bool = False) -> Conversation:
    return Conversation(
        [
            Message(role, text, counts=role == "assistant" or (role == "user" and train_on_input))
            for role, text in CONVERSATIONS[name]
        ],
        place="row 3",
    )


def counted(tokenizer, row: Encoded) -> str:
    assert all(label in (IGNORED, token) for token, label in zip(row.tokens, row.labels, strict=True))
    return tokenizer.decode([label for label in row.labels if label != IGNORED])


@pytest.mark.parametrize("template", [tiny.CHATML, None], ids=["own template", "no template"])
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_ids_are_those_of_the_chat_template(name: str, template: str | None, tmp_path: Path):
    tiny.write_tokenizer(tmp_path, template)
    tokenizer = load_tokenizer(tmp_path)
    turns = [{"role": role, "content": text} for role, text in CONVERSATIONS[name]]
    expected = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
    assert encode(tokenizer, [asked(name)])[0].tokens == expected


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_loss_counts_each_answer_up_to_the_end_of_its_turn(name: str, model: Path):
    tokenizer = load_tokenizer(model)
    answers = [text for role, text in CONVERSATIONS[name] if role == "assistant"]
    expected = "".join(f"{answer}<|im_end|>\n" for answer in answers)
    assert counted(tokenizer, encode(tokenizer, [asked(name)])[0]) == expected


def test_the_prompt_counts_where_it_is_to_be_trained_on_but_not_the_system_message(model: Path):
    tokenizer = load_tokenizer(model)
    text = counted(tokenizer, encode(tokenizer, [asked("system prompt", train_on_input=True)])[0])
    assert "be brief" not in text
    assert "red" in text and "blue<|im_end|>" in text


def test_the_prompt_for_inference_is_the_beginning_of_the_training_text(model: Path):
    tokenizer = load_tokenizer(model)
    row = encode(tokenizer, [asked("one turn")])[0]
    prompt = encode_prompt(tokenizer, Conversation(asked("one turn").messages[:1]))
    assert row.tokens[: len(prompt)] == prompt
    assert set(row.labels[: len(prompt)]) == {IGNORED} and row.labels[len(prompt)] != IGNORED


def test_a_rows_first_token_never_counts(tmp_path: Path):
    tiny.write_tokenizer(tmp_path, "{% for message in messages %}{{ message['content'] }}{% endfor %}")
    row = encode(load_tokenizer(tmp_path), [asked("one turn", train_on_input=True)])[0]
    assert row.labels == [IGNORED, *row.tokens[1:]]


def test_many_conversations_at_once_are_encoded_as_each_alone(model: Path):
    tokenizer = load_tokenizer(model)
    assert encode(tokenizer, [asked(name) for name in CONVERSATIONS]) == [
        encode(tokenizer, [asked(name)])[0] for name in CONVERSATIONS
    ]


def test_a_model_without_a_template_gets_the_stated_default_which_ends_answers(tmp_path: Path):
    tiny.write_tokenizer(tmp_path, None)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.chat_template == DEFAULT_CHAT_TEMPLATE
    assert tokenizer.eos_token_id in encode(tokenizer, [asked("one turn")])[0].labels


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{{ raise_exception('no roles at all') }}", "refuses row 3: no roles at all"),
        (
            "{% for m in messages %}{{ m['content'] + loop.revindex | string }}{% endfor %}",
            "turn 3 .from 0. cannot be found",
        ),
        (
            "{% for m in messages %}{{ m['content'] | replace('b', 'B') }}\n{% endfor %}",
            "that rewrites what the turns say",
        ),
        ("{% for m in messages if loop.index0 %}{{ m['content'] }}\n{% endfor %}", "refuses row 3"),
        (
            "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}\n{% endif %}{% endfor %}",
            "leaves out",
        ),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(template: str, complaint: str, tmp_path: Path):
    tiny.write_tokenizer(tmp_path, template)
    with pytest.raises(UserError, match=complaint):
        encode(load_tokenizer(tmp_path), [asked("two turns")])


def test_a_tokenizer_that_is_not_there_is_refused(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="tokenizer"):
        load_tokenizer(tmp_path)


def test_torchtune_gets_the_same_tokens_with_a_mask(model: Path):
    from torchtune.data import Message as TorchtuneMessage

    from kfp_finetune.components.torchtune_train.tokenizers import ChatTokenizer

    turns = [TorchtuneMessage(role=m.role, content=m.content, masked=not m.counts) for m in asked("two turns").messages]
    expected = encode(load_tokenizer(model), [asked("two turns")])[0]
    adapter = ChatTokenizer(str(model), max_seq_len=12)
    sample = adapter({"messages": turns})
    assert sample["tokens"] == expected.tokens[:12]
    assert sample["mask"] == [label == IGNORED for label in expected.labels[:12]]
    assert adapter.pad_id == adapter.tokenizer.pad_token_id
