"""The demonstration's data and base model: enough pairs, an honest split, a model that loads."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer, Qwen2ForCausalLM

from kfp_finetune.client.demo.docstrings import Pair, _groups, answer_from, docstring_pairs, write_dataset
from kfp_finetune.client.demo.tiny_model import Shape, reference_texts, write_base_model

TINY = Shape(600, hidden_size=32, layers=1, heads=2, key_value_heads=1, intermediate_size=64, batch_tokens=256)


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("docstrings")
    write_dataset(directory)
    return directory


@pytest.fixture(scope="module")
def base_model(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("base")
    write_base_model(directory, reference_texts(dataset / "train.jsonl")[:500], steps=2, shape=TINY)
    return directory


def test_pairs_are_many_and_unique_and_sorted() -> None:
    pairs = docstring_pairs()
    questions = [pair.question for pair in pairs]
    assert len(pairs) > 3000
    assert questions == sorted(set(questions))
    assert len({pair.answer for pair in pairs}) == len(pairs)
    assert {"What does os.path.join do?", "What does len do?", "What is the module json for?"} <= set(questions)


def test_another_interpreter_writes_the_same_files_and_prints_nothing(tmp_path: Path, dataset: Path) -> None:
    code = (
        "import sys, pathlib; from kfp_finetune.client.demo.docstrings import write_dataset;"
        "write_dataset(pathlib.Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": "5"}, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")
    for name in ("train.jsonl", "test.jsonl"):
        assert (tmp_path / name).read_bytes() == (dataset / name).read_bytes()


@pytest.mark.parametrize(
    ("docstring", "answer"),
    [
        ("Join two file paths.\n\n    Details follow.", "Join two file paths."),
        ("Join two\n    file paths.", "Join two file paths."),
        ("join(a, b) -> str\n\nJoin two file paths.", "Join two file paths."),
        ("Join two file paths.\n>>> join('a', 'b')", "Join two file paths."),
        ("Return repr(self).", ""),
        ("Short.", ""),
        ("", ""),
        ("Too long. " + "x " * 300, ""),
        ("word " * 100, ""),
    ],
)
def test_answer_is_the_first_paragraph(docstring: str, answer: str) -> None:
    assert answer_from(docstring) == answer


def test_split_has_the_asked_share_and_no_question_or_answer_on_both_sides(dataset: Path) -> None:
    train, test = rows(dataset / "train.jsonl"), rows(dataset / "test.jsonl")
    assert len(test) / (len(train) + len(test)) == pytest.approx(0.05, abs=0.002)
    for key in ("input", "output"):
        assert not {row[key] for row in train} & {row[key] for row in test}


def test_pairs_that_resemble_each_other_stay_together() -> None:
    alike = [
        Pair("What does a.Reader.close do?", "Close the file. Twice is an error."),
        Pair("What does b.Writer.close do?", "Close the file. Data is flushed."),
    ]
    other = Pair("What does c.open do?", "Open something for reading.")
    assert _groups([*alike, other]) == [alike, [other]]


def test_another_seed_draws_another_split(tmp_path: Path, dataset: Path) -> None:
    write_dataset(tmp_path, seed=8)
    assert (tmp_path / "test.jsonl").read_bytes() != (dataset / "test.jsonl").read_bytes()


@pytest.mark.parametrize("held_out", [0.0, 1.0, -0.1])
def test_a_share_that_leaves_one_side_empty_is_refused(tmp_path: Path, held_out: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        write_dataset(tmp_path, held_out=held_out)


def test_tokenizer_keeps_text_and_renders_the_chat(base_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base_model)
    text = "Return  HTTPHandler.map_x(1, 22)\n\n    naïve 日本 🙂 it's\t."
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    chat = [{"role": "user", "content": "What does len do?"}, {"role": "assistant", "content": "It counts."}]
    prompt = tokenizer.apply_chat_template(chat[:1], tokenize=False, add_generation_prompt=True)
    assert prompt == "<|im_start|>user\nWhat does len do?<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.apply_chat_template(chat, tokenize=False) == prompt + "It counts.<|im_end|>\n"
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert tokenizer("<|im_start|>a<|im_end|>")["input_ids"][::2] == [1, 2]


def test_model_loads_whole_and_is_tied(base_model: Path) -> None:
    model, report = Qwen2ForCausalLM.from_pretrained(base_model, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert json.loads((base_model / "config.json").read_text())["dtype"] == "float32"
    assert 2 in model.generation_config.eos_token_id


def test_pretraining_repeats_and_reports_every_step(tmp_path: Path, dataset: Path, base_model: Path) -> None:
    texts = reference_texts(dataset / "train.jsonl")[:500]
    seen: list[tuple[int, int, float]] = []
    write_base_model(tmp_path, texts, steps=2, shape=TINY, on_step=lambda *step: seen.append(step))
    assert [step[:2] for step in seen] == [(1, 2), (2, 2)]
    assert (tmp_path / "model.safetensors").read_bytes() == (base_model / "model.safetensors").read_bytes()


def test_nothing_to_learn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs texts and steps"):
        write_base_model(tmp_path, [])
