"""Data files: which split each belongs to, and the rows of real files in every format."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from kfp_finetune.datafiles import find_data_files, open_split
from kfp_finetune.errors import UserError

ROWS = [{"input": f"question {number}, ü", "output": f"answer {number}"} for number in range(10)]


def write_json(path: Path) -> None:
    path.write_text(json.dumps(ROWS))


def write_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def write_csv(path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["input", "output"])
        writer.writeheader()
        writer.writerows(ROWS)


def write_parquet(path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)


WRITERS = {"json": write_json, "jsonl": write_jsonl, "csv": write_csv, "parquet": write_parquet}


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("data.jsonl", "train"),
        ("train.jsonl", "train"),
        ("training_set.csv", "train"),
        ("train-00000-of-00002.parquet", "train"),
        ("Validation.json", "validation"),
        ("my-val.json", "validation"),
        ("valid_01.json", "validation"),
        ("dev.json", "validation"),
        ("TEST.json", "test"),
        ("testing2.json", "test"),
        ("eval.json", "test"),
        ("evaluation/0.json", "test"),
        ("test/data.json", "test"),
        ("a/validation/b/c.json", "validation"),
        ("test/train.json", "train"),
        ("train/test.json", "test"),
        ("contest.json", "train"),
        ("latest/devices.json", "train"),
        ("trainer.validation.json", "validation"),
    ],
)
def test_the_last_split_word_of_a_name_or_its_folders_says_the_split(tmp_path: Path, name: str, split: str) -> None:
    path = touch(tmp_path, name) / name
    assert find_data_files(tmp_path).splits == {split: (path,)}


def test_a_word_above_the_dataset_says_nothing(tmp_path: Path) -> None:
    touch(tmp_path / "test", "rows.json")
    assert list(find_data_files(tmp_path / "test").splits) == ["train"]


def test_files_of_a_split_are_sorted_and_other_files_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "b.jsonl", "a.json", "test/c.json", "README.md", "MANIFEST.json")
    files = find_data_files(tmp_path)
    assert files.format == "json"
    assert files.splits == {"test": (tmp_path / "test/c.json",), "train": (tmp_path / "a.json", tmp_path / "b.jsonl")}


@pytest.mark.parametrize(
    ("names", "found"),
    [(["a.csv", "b.json"], "csv, json"), (["a.parquet", "b/c.csv"], "csv, parquet"), (["a.txt"], "none"), ([], "none")],
)
def test_mixed_formats_and_none_are_refused_with_what_was_found(tmp_path: Path, names: list[str], found: str) -> None:
    with pytest.raises(UserError, match=f"files of the formats {found};"):
        find_data_files(touch(tmp_path, *names))


@pytest.mark.parametrize("ending", WRITERS)
def test_rows_are_read_as_they_were_written(tmp_path: Path, ending: str) -> None:
    WRITERS[ending](tmp_path / f"rows.{ending}")
    with open_split(tmp_path, "train") as rows:
        assert rows.to_list() == ROWS


@pytest.mark.parametrize("name", ["a [1] *.jsonl", "größe?.jsonl", "{a}.jsonl", "__x__/.. .jsonl", "a#b%20c.jsonl"])
def test_a_name_with_signs_of_patterns_is_a_name_like_any_other(tmp_path: Path, name: str) -> None:
    directory = touch(tmp_path / "folder [x]", name)
    write_jsonl(directory / name)
    with open_split(directory, "train") as rows:
        assert len(rows) == 10


@pytest.mark.parametrize(
    ("split", "numbers"),
    [
        ("train[:10%]", [0]),
        ("train[2:4]", [2, 3]),
        ("train[-1:]", [9]),
        ("train[:1]+train[9:]", [0, 9]),
        ("test", [7]),
        ("train[:1]+test", [0, 7]),
    ],
)
def test_a_split_may_be_a_part_or_a_sum_of_parts(tmp_path: Path, split: str, numbers: list[int]) -> None:
    write_jsonl(tmp_path / "train.jsonl")
    (tmp_path / "test.jsonl").write_text(json.dumps(ROWS[7]) + "\n")
    with open_split(tmp_path, split) as rows:
        assert rows.to_list() == [ROWS[number] for number in numbers]


@pytest.mark.parametrize("split", ["validation", "validation[:1]", "train+validation", "Train", "", "train.jsonl"])
def test_an_unknown_split_is_refused_with_those_that_are_there(tmp_path: Path, split: str) -> None:
    touch(tmp_path, "train.jsonl", "test.jsonl")
    with pytest.raises(UserError) as caught, open_split(tmp_path, split):
        pass
    assert f"split: given {split!r}; allowed: one of test, train." in str(caught.value)


@pytest.mark.parametrize("split", ["train[:10", "train[a:b]", "train[100:200]", "train[:0]", "train[:500%]"])
def test_a_part_that_cannot_be_or_has_no_rows_is_a_problem_of_the_split(tmp_path: Path, split: str) -> None:
    write_jsonl(tmp_path / "rows.jsonl")
    with pytest.raises(UserError) as caught, open_split(tmp_path, split):
        pass
    assert [problem.what for problem in caught.value.problems] == ["split"]
    assert repr(split) in str(caught.value)


def text(value: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(value)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("broken.jsonl", text('{"input": "a", "output": "b"}\n{"input":')),
        ("broken.json", text('[{"input": "a"},')),
        ("scalars.jsonl", text("1\n2\n")),
        ("ragged.csv", text("input,output\na,b\na,b,c,d\n")),
        ("blank.csv", text("\n")),
        ("latin.csv", lambda path: path.write_bytes(b"input,output\n\xe9,b\n")),
        ("no.parquet", text("PAR1 it is not PAR1")),
    ],
)
def test_a_broken_file_is_one_clear_problem_that_names_it(
    tmp_path: Path, name: str, write: Callable[[Path], object]
) -> None:
    ending = name.rpartition(".")[2]
    for sound in ("a", "z"):
        WRITERS[ending](tmp_path / f"{sound}.{ending}")
    write(tmp_path / name)
    with pytest.raises(UserError) as caught, open_split(tmp_path, "train"):
        pass
    assert str(caught.value).startswith(f"1 problem with what was given:\n  - dataset: given {name}, which cannot be ")
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("second", ['{"other": 5}\n', '{"input": "text"}\n'], ids=["columns", "types"])
def test_sound_files_that_do_not_fit_together_are_one_clear_problem(tmp_path: Path, second: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"input": 5}\n')
    (tmp_path / "b.jsonl").write_text(second)
    with pytest.raises(UserError) as caught, open_split(tmp_path, "train"):
        pass
    assert "dataset: given json files that together cannot be read: " in str(caught.value)
    assert len(str(caught.value).splitlines()) == 3


def test_json_that_is_not_utf8_is_a_clear_problem_once_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"input": "\xe9"}\n')
    with pytest.raises(UserError, match="text that is not UTF-8"), open_split(tmp_path, "train") as rows:
        rows.to_list()


def test_reading_asks_nobody_on_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jsonl(tmp_path / "rows.jsonl")
    asked: list[object] = []
    monkeypatch.setattr("socket.getaddrinfo", lambda *address, **_: asked.append(address) or [])
    with open_split(tmp_path, "train") as rows:
        assert len(rows) == 10
    assert asked == []


def test_nothing_is_left_of_the_cache_but_the_rows_can_be_read_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary, data = tmp_path / "temporary", tmp_path / "data"
    temporary.mkdir()
    data.mkdir()
    write_jsonl(data / "rows.jsonl")
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    with open_split(data, "train") as rows:
        assert rows.cache_files and all(file["filename"].startswith(f"{temporary}/") for file in rows.cache_files)
        assert rows[9] == ROWS[9]
    assert list(temporary.iterdir()) == []
    assert [path.name for path in data.iterdir()] == ["rows.jsonl"]
