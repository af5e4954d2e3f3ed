"""Data files: which split each belongs to, and the rows of real files in every format."""

import csv
import itertools
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from bombs import one_value_for_all_rows
from children import small_volume
from hypothesis import given, settings
from hypothesis import strategies as st

from kfp_finetune.datafiles import find_data_files, open_split
from kfp_finetune.errors import UserError
from kfp_finetune.json_rows import read_json

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


def write_arrow_stream(path: Path) -> None:
    table = pyarrow.Table.from_pylist(ROWS)
    with pyarrow.ipc.new_stream(path, table.schema) as stream:
        stream.write_table(table)


def write_arrow_file(path: Path) -> None:
    table = pyarrow.Table.from_pylist(ROWS)
    with pyarrow.ipc.new_file(path, table.schema) as file:
        file.write_table(table)


WRITERS = {"json": write_json, "jsonl": write_jsonl, "csv": write_csv, "parquet": write_parquet}
WRITERS |= {"arrow": write_arrow_stream}


def write_file(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(directory: Path, split: str = "train") -> list[dict]:
    with open_split(directory, split) as rows:
        return rows.to_list()


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
    [
        (["a.csv", "b.json"], "csv, json"),
        (["a.parquet", "b/c.csv"], "csv, parquet"),
        (["a.txt", "b.jsonl"], "json, text"),
        (["a.md"], "none"),
        ([], "none"),
    ],
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


READ: dict[str, tuple[str, str | bytes, list[dict]]] = {
    "byte order mark, json": ("a.jsonl", '\ufeff{"input": "a"}\n', [{"input": "a"}]),
    "byte order mark, array": ("a.json", '\ufeff[{"input": "a"}]', [{"input": "a"}]),
    "byte order mark, csv": ("a.csv", "\ufeffinput,output\na,b\n", [{"input": "a", "output": "b"}]),
    "byte order mark, text": ("a.txt", "\ufeffa\nb", [{"text": "a"}, {"text": "b"}]),
    "crlf, json": ("a.jsonl", '{"input": "a\\r\\n"}\r\n\r\n{"input": "b"}\r\n', [{"input": "a\r\n"}, {"input": "b"}]),
    "crlf, csv": ("a.csv", 'input\r\n"a\r\nb"\r\nc\r\n', [{"input": "a\r\nb"}, {"input": "c"}]),
    "crlf, text": ("a.txt", "a \r\n\r\n \r\nb\r\n", [{"text": "a "}, {"text": "b"}]),
    "crlf, xml": ("a.xml", "<a>\r\n b</a>\n", [{"xml": "<a>\n b</a>\n"}]),
    "quotes, newlines and delimiters": ("a.csv", 'i,o\n"a,""b""\n\nc", d\n', [{"i": 'a,"b"\n\nc', "o": " d"}]),
    "numbers and NA in a csv": ("a.csv", "i,o\n007,NA\n1e3,\n", [{"i": "007", "o": "NA"}, {"i": "1e3", "o": ""}]),
    "a csv with an empty column name": ("a.csv", ",i\n0,a\n", [{"": "0", "i": "a"}]),
    "nothing in the middle": (
        "a.jsonl",
        '{"i": "a"}\n{"i": null}\n{"o": "b"}\n',
        [{"i": "a", "o": None}, {"i": None, "o": None}, {"i": None, "o": "b"}],
    ),
    "dates stay text": ("a.jsonl", '{"input": "2020-01-01"}\n', [{"input": "2020-01-01"}]),
    "numbers stay numbers": ("a.jsonl", '{"i": 7}\n{"i": 0.5}\n{"i": "7"}\n', [{"i": 7}, {"i": 0.5}, {"i": "7"}]),
    "nested": ("a.json", '{"m": [{"a": 1}, {"b": ["c", null]}]}', [{"m": [{"a": 1}, {"b": ["c", None]}]}]),
    "an object over several lines": ("a.json", '\n{\n "input":\n "a"}\n', [{"input": "a"}]),
    "separators of Unicode": ("a.txt", "a\u2028b\x85c\x0bd\n", [{"text": "a\u2028b\x85c\x0bd"}]),
    "emoji": ("a.jsonl", '{"i": "\\ud83d\\ude00 👩‍👩‍👧 \\u0000"}\n', [{"i": "😀 👩‍👩‍👧 \0"}]),
    "a long row": ("a.csv", f"i,o\n{'x' * 200_000},ü\n", [{"i": "x" * 200_000, "o": "ü"}]),
    "long numbers beside": ("a.jsonl", '{"i": "a", "n": 1e999, "m": NaN}\n', [{"i": "a", "n": None, "m": None}]),
}


@pytest.mark.parametrize(("name", "content", "rows"), READ.values(), ids=READ.keys())
def test_odd_files_are_read_as_they_are(tmp_path: Path, name: str, content: str | bytes, rows: list[dict]) -> None:
    write_file(tmp_path / name, content)
    assert read(tmp_path) == rows


BROKEN: dict[str, tuple[str, str | bytes, str]] = {
    "cut line": ("a.jsonl", '{"i": "a"}\n{"i":\n{"i": "b"}\n', "line 2, which cannot be read: Expecting value"),
    "cut array": ("a.json", '[{"i": "a"},\n{"i"', "line 2, which cannot be read: Expecting ':'"),
    "scalars": ("a.jsonl", '{"i": "a"}\n1\n', "line 2, which cannot be read: '1' where an object"),
    "scalars in an array": ("a.json", '[{"i": "a"}, "b"]', "element 1 (from 0), which cannot be read: 'b' where"),
    "a name twice": ("a.jsonl", '{"i": "a", "i": "b"}\n', "line 1, which cannot be read: the name 'i' twice"),
    "half a pair": ("a.jsonl", '\n{"i": "\\ud83d"}\n', "line 2, which cannot be read: half of a surrogate pair"),
    "too deep": (
        "a.jsonl",
        '{"i": ' + "[" * 9999 + "]" * 9999 + "}",
        "line 1, which cannot be read: maximum recursion",
    ),
    "latin-1": ("a.jsonl", b'{"i": "a"}\n{"i": "\xe9"}\n', "line 2, which cannot be read: text that is not UTF-8"),
    "utf-16": ("a.csv", "i,o\na,b\n".encode("utf-16"), "line 1, which cannot be read: text that is not UTF-8"),
    "latin-1 text": ("a.txt", b"a\n\xe9\n", "line 2, which cannot be read: text that is not UTF-8"),
    "too many fields": (
        "a.csv",
        'i,o\n"a\nb",c\na,b,c\n',
        "line 4, which cannot be read: 3 fields where the header has 2",
    ),
    "too few fields": ("a.csv", "i,o\na\n", "line 2, which cannot be read: 1 fields"),
    "all rows too long": ("a.csv", "i,o\na,b,c\nd,e,f\n", "line 2, which cannot be read: 3 fields"),
    "a column twice": ("a.csv", "i,o,i\na,b,c\n", "line 1, which cannot be read: the column 'i' twice"),
    "an open quote": ("a.csv", 'i,o\na,b\nc,"d\ne,f\n', "line 3, which cannot be read: unexpected end of data"),
    "text behind a quote": ("a.csv", 'i,o\na,"b\\" c"\n', "line 2, which cannot be read: "),
    "no header": ("a.csv", "\n", "line 1, which cannot be read: no header"),
    "not parquet": ("a.parquet", "PAR1 it is not PAR1", "which cannot be read: "),
    "not arrow": ("a.arrow", "it is not Arrow", "which cannot be read: "),
}


@pytest.mark.parametrize(("name", "content", "complaint"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_is_one_clear_problem_that_names_it_and_the_line(
    tmp_path: Path, name: str, content: str | bytes, complaint: str
) -> None:
    ending = name.rpartition(".")[2]
    for sound in ("0", "z"):
        WRITERS.get(ending, lambda path: path.write_text("sound\n"))(tmp_path / f"{sound}.{ending}")
    write_file(tmp_path / name, content)
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(f"1 problem with what was given:\n  - dataset: given {name}, {complaint}")
    assert len(str(caught.value).splitlines()) == 3


def test_parquet_files_that_do_not_fit_together_are_one_clear_problem(tmp_path: Path) -> None:
    for name, value in ("a", 5), ("b", "text"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"input": value}]), tmp_path / f"{name}.parquet")
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    assert "dataset: given parquet files that together cannot be read: " in str(caught.value)
    assert len(str(caught.value).splitlines()) == 3


def test_json_files_whose_rows_lack_columns_of_others_hold_nothing_there(tmp_path: Path) -> None:
    write_file(tmp_path / "a.jsonl", '{"input": "a"}\n')
    write_file(tmp_path / "b.jsonl", '{"output": 5}\n')
    assert read(tmp_path) == [{"input": "a", "output": None}, {"input": None, "output": 5}]


@pytest.mark.parametrize("write", [write_arrow_stream, write_arrow_file])
def test_both_forms_of_arrow_are_read(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "rows.arrow")
    assert read(tmp_path) == ROWS


def test_a_saved_dataset_is_read_without_its_notes_and_caches(tmp_path: Path) -> None:
    saved = datasets.DatasetDict(
        {"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS[:2])}
    )
    saved.save_to_disk(tmp_path, num_shards={"train": 2, "test": 1})
    write_arrow_stream(tmp_path / "train" / "cache-0123.arrow")
    assert find_data_files(tmp_path).format == "arrow"
    assert (read(tmp_path), read(tmp_path, "test")) == (ROWS, ROWS[:2])


def test_a_state_that_names_no_files_is_refused_and_without_arrow_files_it_is_data(tmp_path: Path) -> None:
    write_file(tmp_path / "state.json", '{"input": "a"}')
    assert read(tmp_path) == [{"input": "a"}]
    write_arrow_stream(tmp_path / "rows.arrow")
    with pytest.raises(UserError, match=r"state\.json, which does not name the files"):
        read(tmp_path)
    os.truncate(tmp_path / "state.json", 64 * 2**20 + 1)
    with pytest.raises(UserError, match=r"state\.json of 67,108,865 bytes; allowed: at most 67,108,864 bytes"):
        read(tmp_path)


def test_an_array_is_read_element_by_element_wherever_its_pieces_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"a": 'ü\\"😀 [}],' * 9, "n": [12345, -1.5e10, None, True, {"x": []}]}, {"n": "", "ä": {}}]
    for indent, is_ascii, size in itertools.product((None, 2), (True, False), (*range(1, 40), 300)):
        text = json.dumps(rows, indent=indent, ensure_ascii=is_ascii)
        write_file(tmp_path / "rows.json", f"\ufeff\n {text}\n\n")
        monkeypatch.setattr("kfp_finetune.lines.PIECE_BYTES", size)
        monkeypatch.setattr("kfp_finetune.json_rows.PIECE_BYTES", size)
        assert list(read_json(tmp_path / "rows.json")) == rows
        write_file(tmp_path / "rows.json", text[:-1])
        with pytest.raises(UserError, match=f"line {text.count(chr(10)) + 1}, which cannot be read"):
            list(read_json(tmp_path / "rows.json"))


FEATURES = datasets.Features({"input": datasets.Value("string"), "output": datasets.Value("string")})
EMPTY: dict[str, Callable[[Path], object]] = {
    "csv": lambda path: path.write_text("input,output\n"),
    "json": lambda path: path.write_text("[]"),
    "jsonl": lambda path: path.write_text("\n"),
    "arrow": lambda path: datasets.arrow_writer.ArrowWriter(path=str(path), features=FEATURES).finalize(),
    "parquet": lambda path: pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS).slice(0, 0), path),
}


@pytest.mark.parametrize("ending", EMPTY)
def test_files_without_rows_beside_full_ones_add_nothing_and_alone_are_refused(tmp_path: Path, ending: str) -> None:
    for name in ("a", "z"):
        EMPTY[ending](tmp_path / f"{name}.{ending}")
    with pytest.raises(UserError, match="split: given 'train'"):
        read(tmp_path)
    WRITERS[ending](tmp_path / f"m.{ending}")
    assert read(tmp_path) == ROWS


@pytest.mark.parametrize("ending", EMPTY)
def test_a_split_without_rows_beside_one_with_rows_is_refused(tmp_path: Path, ending: str) -> None:
    EMPTY[ending](tmp_path / f"test.{ending}")
    WRITERS[ending](tmp_path / f"train.{ending}")
    assert read(tmp_path) == ROWS
    with pytest.raises(UserError, match="split: given 'test'"):
        read(tmp_path, "test")


TEXT = st.text(st.characters(exclude_categories=("Cs",)))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.fixed_dictionaries({"text": TEXT, "more": JSON}), min_size=1, max_size=4), st.booleans())
def test_any_rows_come_back_from_json_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict], ascii_only: bool
) -> None:
    directory = tmp_path_factory.mktemp("json")
    lines = (json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    write_file(directory / "rows.jsonl", "\n".join(lines))
    assert read(directory) == rows


@settings(max_examples=40, deadline=None)
@given(st.lists(st.fixed_dictionaries({"a": TEXT, "b": TEXT}), min_size=1, max_size=4))
def test_any_text_comes_back_from_csv_as_it_was(tmp_path_factory: pytest.TempPathFactory, rows: list[dict]) -> None:
    path = tmp_path_factory.mktemp("csv") / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["a", "b"], quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
    assert read(path.parent) == rows


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


READ_IN_A_PROCESS = """
import resource, sys
from pathlib import Path
from kfp_finetune.datafiles import open_split
from kfp_finetune.errors import UserError
try:
    with open_split(Path(sys.argv[1]), "train") as rows:
        print(len(rows))
except UserError as error:
    print(error.problems[0])
own = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(int(own.split()[1]) + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def read_in_a_process(directory: Path) -> tuple[str, int]:
    """What was said, and the peak of the memory in kB."""
    command = [sys.executable, "-c", READ_IN_A_PROCESS, str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said, _, peak = done.stdout.strip().rpartition("\n")
    return said, int(peak)


def test_a_small_file_that_stands_for_gigabytes_is_refused_and_takes_little_memory(tmp_path: Path) -> None:
    one_value_for_all_rows(tmp_path / "rows.parquet")
    assert (tmp_path / "rows.parquet").stat().st_size < 10_000
    said, peak = read_in_a_process(tmp_path)
    assert said.startswith("dataset: given rows.parquet with rows that need more than 2,147,483,648 bytes of memory")
    assert "Write the file again with smaller row groups" in said
    assert peak < 2_700_000


def test_a_large_row_group_of_one_page_is_read(tmp_path: Path) -> None:
    texts = [random.Random(number).randbytes(500_000).hex() for number in range(200)]
    table = pyarrow.table({"input": texts})
    pyarrow.parquet.write_table(
        table, tmp_path / "rows.parquet", use_dictionary=False, data_page_size=2**30, write_batch_size=1000
    )
    said, peak = read_in_a_process(tmp_path)
    assert said == "200" and peak < 1_500_000
    with open_split(tmp_path, "train") as rows:
        assert rows[199]["input"] == texts[199]


@pytest.fixture
def small_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary directory with room for fifty megabytes."""
    with small_volume(tmp_path / "temporary", "50m") as directory:
        monkeypatch.setattr("tempfile.tempdir", str(directory))
        yield directory


def many_rows(path: Path) -> None:
    path.write_text(f'{{"input": "{"x" * 1_000_000}"}}\n' * 100)


def many_rows_in_little(path: Path) -> None:
    one_value_for_all_rows(path, rows=100_000, size=1_000_000)


@pytest.mark.parametrize(("name", "write"), [("rows.parquet", many_rows_in_little), ("rows.jsonl", many_rows)])
def test_rows_that_fill_the_temporary_directory_are_refused_with_its_name(
    tmp_path: Path, small_temporary: Path, name: str, write: Callable[[Path], None]
) -> None:
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / name)
    with pytest.raises(UserError, match=f"take more room, as they are read, than there is at {small_temporary}; "):
        read(tmp_path / "data")
    assert list(small_temporary.iterdir()) == []


TEXTS = [f"text {number}, longer than a view holds by itself" for number in range(2000)]
VIEWS = pyarrow.array(TEXTS, pyarrow.string_view())
ODD_TYPES = {
    "dictionary": pyarrow.array(TEXTS).dictionary_encode(),
    "view": VIEWS,
    "views in lists": pyarrow.ListArray.from_arrays(list(range(2001)), VIEWS),
    "views in structs": pyarrow.StructArray.from_arrays([VIEWS], ["x"]),
    "large": pyarrow.array(TEXTS, pyarrow.large_string()),
}


@pytest.mark.parametrize(
    ("ending", "kind"),
    [*itertools.product(["arrow"], ODD_TYPES), ("parquet", "dictionary"), ("parquet", "view"), ("parquet", "large")],
)
def test_text_of_any_kind_is_read_and_takes_its_own_room_alone(tmp_path: Path, ending: str, kind: str) -> None:
    table = pyarrow.table({"input": ODD_TYPES[kind]})
    if ending == "parquet":
        pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    else:
        with pyarrow.ipc.new_stream(tmp_path / "rows.arrow", table.schema) as stream:
            stream.write_table(table)
    with open_split(tmp_path, "train") as rows:
        assert rows["input"][:] == table["input"].to_pylist()
        assert sum(Path(file["filename"]).stat().st_size for file in rows.cache_files) < 3 * sum(map(len, TEXTS))


def text_of(offsets: list[int], content: bytes) -> pyarrow.Array:
    places = pyarrow.array(offsets, pyarrow.int32()).buffers()[1]
    return pyarrow.StringArray.from_buffers(len(offsets) - 1, places, pyarrow.py_buffer(content))


@pytest.mark.parametrize(
    ("ending", "array"),
    [
        ("arrow", text_of([0, 1_000_000, 2], b"ab")),
        ("arrow", text_of([0, 1, 2], b"\xff\xfe")),
        ("parquet", text_of([0, 1, 2], b"\xff\xfe")),
    ],
)
def test_text_that_is_not_utf_8_or_not_there_is_one_clear_problem(
    tmp_path: Path, ending: str, array: pyarrow.Array
) -> None:
    table = pyarrow.table({"input": array})
    if ending == "parquet":
        pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    else:
        with pyarrow.ipc.new_stream(tmp_path / "rows.arrow", table.schema) as stream:
            stream.write_table(table)
    with pytest.raises(UserError, match=rf"dataset: given rows\.{ending}, which cannot be read: "):
        read(tmp_path)
