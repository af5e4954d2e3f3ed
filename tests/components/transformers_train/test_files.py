"""Rows of files on the volume, as the step before leaves them, in each format that a task's data comes in."""

import csv
import io
import json
from pathlib import Path

import datasets
import pytest
import transformers
from PIL import Image

from kfp_finetune.datafiles import open_split

FORMATS = ("jsonl", "parquet", "arrow")
WORDS = [{"tokens": ["Ada", "sang"], "ner_tags": ["B-PER", "O"]}, {"tokens": ["Oslo"], "ner_tags": ["B-LOC"]}]
SQUAD = [
    {"question": "Where?", "context": "In Oslo.", "answers": {"text": ["Oslo"], "answer_start": [3]}},
    {"question": "Who?", "context": "In Oslo.", "answers": {"text": [], "answer_start": []}},
]
OPINIONS = [{"text": "good, 'very'", "label": "1"}, {"text": "bad\nindeed", "label": "0"}]


def write(directory: Path, rows: datasets.Dataset, form: str) -> Path:
    """Rows as files of a format, a training split and the same as validation."""
    for split in ("train", "validation"):
        if form == "jsonl":
            (directory / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        elif form == "parquet":
            rows.to_parquet(directory / f"{split}.parquet")
        elif form == "arrow":
            rows.save_to_disk(directory / split)
        else:
            with (directory / f"{split}.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, rows.column_names)
                writer.writeheader()
                writer.writerows(list(rows))
    return directory


@pytest.fixture(scope="module")
def bert(tmp_path_factory, make_bert) -> Path:
    return make_bert(tmp_path_factory.mktemp("bert"), ["Ada sang In Oslo . Where ? Who good bad indeed"] * 9, size=90)


@pytest.mark.parametrize(
    ("name", "rows", "form"),
    [
        *(("AutoModelForTokenClassification", WORDS, form) for form in FORMATS),
        *(("AutoModelForQuestionAnswering", SQUAD, form) for form in FORMATS),
        *(("AutoModelForSequenceClassification", OPINIONS, form) for form in (*FORMATS, "csv")),
        *(("AutoModelForMaskedLM", OPINIONS, form) for form in (*FORMATS, "csv")),
    ],
)
def test_rows_of_files_are_the_rows_in_memory(bert, case_of, tmp_path, name, rows, form):
    memory = case_of(name, bert, rows, rows)
    directory = write(tmp_path, memory.train.rows, form)
    with open_split(directory, "train") as train, open_split(directory, "validation") as held_out:
        files = case_of(name, bert, train, held_out)
        shape, _, *parts = files.prepare()
        wanted_shape, _, *wanted = memory.prepare()
        assert shape == wanted_shape
        assert [part.to_list() for part in parts] == [part.to_list() for part in wanted]


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_pictures_and_classes_of_files_are_those_in_memory(case_of, tmp_path, form):
    model, data = tmp_path / "model", tmp_path / "data"
    data.mkdir()
    transformers.ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(model)
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["red", "blue"])})
    rows = datasets.Dataset.from_dict({"image": [file.getvalue()] * 2, "label": [0, 1]}, features=features)
    write(data, rows, form)
    with open_split(data, "train") as train, open_split(data, "validation") as held_out:
        shape, _, made, _ = case_of("AutoModelForImageClassification", model, train, held_out).prepare()
        assert shape.labels.names == ("red", "blue")
        assert made.to_list() == [{"picture": file.getvalue(), "labels": number} for number in range(2)]
