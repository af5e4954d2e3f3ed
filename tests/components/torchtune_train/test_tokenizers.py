"""Training sees the very tokens that inference will, and the loss counts the answer alone."""

from pathlib import Path

import pytest
import tiny
from torchtune.data import Message

from kfp_finetune.components.torchtune_train.tokenizers import DEFAULT_CHAT_TEMPLATE, ChatTokenizer
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


def messages(turns: list[tuple[str, str]], train_on_input: bool = False) -> list[Message]:
    return [
        Message(role=role, content=text, masked=role == "system" or (role == "user" and not train_on_input))
        for role, text in turns
    ]


@pytest.mark.parametrize("template", [tiny.CHATML, None], ids=["own template", "no template"])
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_ids_are_those_of_the_chat_template(name: str, template: str | None, tmp_path: Path):
    tiny.write_tokenizer(tmp_path, template)
    tokenizer = ChatTokenizer(str(tmp_path))
    ids, mask = tokenizer.tokenize_messages(messages(CONVERSATIONS[name]))
    turns = [{"role": role, "content": text} for role, text in CONVERSATIONS[name]]
    expected = tokenizer.tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
    assert ids == expected
    assert len(mask) == len(ids)


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_loss_counts_each_answer_up_to_the_end_of_its_turn(name: str, model: Path):
    tokenizer = ChatTokenizer(str(model))
    ids, mask = tokenizer.tokenize_messages(messages(CONVERSATIONS[name]))
    counted = tokenizer.tokenizer.decode([token for token, masked in zip(ids, mask, strict=True) if not masked])
    answers = [text for role, text in CONVERSATIONS[name] if role == "assistant"]
    assert counted == "".join(f"{answer}<|im_end|>\n" for answer in answers)


def test_train_on_input_counts_the_prompt_but_not_the_system_message(model: Path):
    tokenizer = ChatTokenizer(str(model))
    ids, mask = tokenizer.tokenize_messages(messages(CONVERSATIONS["system prompt"], train_on_input=True))
    counted = tokenizer.tokenizer.decode([token for token, masked in zip(ids, mask, strict=True) if not masked])
    assert "be brief" not in counted
    assert "red" in counted and "blue<|im_end|>" in counted


def test_the_prompt_for_inference_is_the_beginning_of_the_training_text(model: Path):
    tokenizer = ChatTokenizer(str(model))
    turns = messages(CONVERSATIONS["one turn"])
    ids, mask = tokenizer.tokenize_messages(turns)
    prompt = tokenizer.prompt_ids(turns[:1])
    assert ids[: len(prompt)] == prompt
    assert all(mask[: len(prompt)]) and not mask[len(prompt)]


def test_a_model_without_a_template_gets_the_stated_default_which_ends_answers(tmp_path: Path):
    tiny.write_tokenizer(tmp_path, None)
    tokenizer = ChatTokenizer(str(tmp_path))
    assert tokenizer.tokenizer.chat_template == DEFAULT_CHAT_TEMPLATE
    ids, mask = tokenizer.tokenize_messages(messages(CONVERSATIONS["one turn"]))
    assert tokenizer.tokenizer.eos_token_id in [token for token, masked in zip(ids, mask, strict=True) if not masked]


def test_rows_are_cut_at_max_seq_len(model: Path):
    ids, mask = ChatTokenizer(str(model), max_seq_len=7).tokenize_messages(messages(CONVERSATIONS["one turn"]))
    assert len(ids) == len(mask) == 7


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{{ raise_exception('no system role') }}", "refuses the rows"),
        ("{% for m in messages %}{{ messages | length }}{{ m['content'] }}{% endfor %}", "differently once another"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(template: str, complaint: str, tmp_path: Path):
    tiny.write_tokenizer(tmp_path, template)
    with pytest.raises(UserError, match=complaint):
        ChatTokenizer(str(tmp_path)).encode([messages(CONVERSATIONS["two turns"])])


def test_a_tokenizer_that_is_not_there_is_refused(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="tokenizer"):
        ChatTokenizer(str(tmp_path))
