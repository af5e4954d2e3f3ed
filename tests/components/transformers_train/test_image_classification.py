"""Pictures in every form become what a model reads, and a model learns their shapes and colours."""

import io
import random
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from small_models import write_vit
from small_rows import draw_shape, encoded, shapes

from kfp_finetune.components.transformers_train.tasks.pictures import open_picture
from kfp_finetune.components.transformers_train.tasks.processors import load_processor
from kfp_finetune.components.transformers_train.tasks.settings import TaskSettings
from kfp_finetune.components.transformers_train.tasks.table import TASKS
from kfp_finetune.errors import UserError

NAME = "AutoModelForImageClassification"


@pytest.fixture(scope="module")
def vit(tmp_path_factory) -> Path:
    return write_vit(tmp_path_factory.mktemp("vit"))


def test_a_model_learns_colours_and_shapes(vit, case_of, train_case, tmp_path):
    case = case_of(NAME, vit, shapes(1000, 1), shapes(120, 2))
    before, after = train_case(case, tmp_path, num_train_epochs=10)
    assert before["accuracy"] < 0.5
    assert after["accuracy"] > 0.9
    assert after["f1"] > 0.9


def test_the_processor_needs_pillow_alone_and_pixels_are_those_of_the_picture(vit):
    processor = load_processor(TASKS[NAME], vit)
    assert type(processor).__name__ == "ViTImageProcessorPil"
    pictures = [draw_shape(random.Random(seed), "circle", "red") for seed in range(3)]
    rows = [{"picture": encoded(picture), "labels": number} for number, picture in enumerate(pictures)]
    batch = TASKS[NAME].collator(processor, TaskSettings())(rows)
    assert batch["labels"].tolist() == [0, 1, 2]
    for picture, pixels in zip(pictures, batch["pixel_values"], strict=True):
        wanted = (np.asarray(picture).transpose(2, 0, 1) / 255 - 0.5) / 0.5
        assert torch.allclose(pixels.double(), torch.tensor(wanted), atol=1e-5)


def test_bytes_objects_and_paths_are_the_same_pictures(vit, case_of, tmp_path):
    made = [encoded(draw_shape(random.Random(seed), "square", "blue")) for seed in range(3)]
    (tmp_path / "pictures").mkdir()
    for number, data in enumerate(made):
        (tmp_path / f"pictures/{number}.png").write_bytes(data)
    names = [f"pictures/{number}.png" for number in range(3)]
    columns = [
        {"image": made},
        {"img": [{"bytes": data, "path": "x.png"} for data in made]},
        {"image": [{"bytes": None, "path": name} for name in names]},
        {"file_name": names},
    ]
    for column in columns:
        rows = datasets.Dataset.from_dict({**column, "label": [0, 1, 0]})
        _, _, train, held_out = case_of(NAME, vit, rows, rows, directory=str(tmp_path)).prepare()
        assert train["picture"] == made
        assert held_out["labels"] == [0, 1, 0]


def test_grey_see_through_and_turned_pictures_are_in_colours_and_upright(vit, case_of):
    grey = Image.new("L", (40, 20), 77)
    clear = Image.new("RGBA", (40, 20), (10, 20, 30, 128))
    turned = Image.new("RGB", (40, 20))
    turned.paste((255, 0, 0), (0, 0, 20, 20))
    exif = turned.getexif()
    exif[0x0112] = 6
    file = io.BytesIO()
    turned.save(file, "JPEG", exif=exif, quality=100)
    assert np.unique(np.asarray(open_picture(encoded(grey)))).tolist() == [77]
    assert open_picture(encoded(clear)).getpixel((0, 0)) == (10, 20, 30)
    upright = open_picture(file.getvalue())
    assert upright.size == (20, 40)
    assert upright.getpixel((10, 3))[0] > 200
    assert upright.getpixel((10, 36))[0] < 50


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"no picture", "cannot be opened: cannot identify image file"),
        ("../secret.png", "is '../secret.png', and there is no such file"),
        ("absent.png", "is 'absent.png', and there is no such file"),
        ("link.png", "is 'link.png', and there is no such file"),
        ({"bytes": None, "path": None}, "is None"),
        (encoded(Image.new("RGB", (64, 64), "red"))[:100], "cannot be opened"),
        (encoded(Image.fromarray(np.full((8, 8), 40_000, "uint16"))), "more than 8 bits"),
        (encoded(Image.new("1", (12_000, 12_000))), "cannot be opened: Image size .* exceeds limit"),
    ],
)
def test_a_picture_that_cannot_be_used_is_refused_by_number(vit, case_of, tmp_path, value, said):
    (tmp_path / "data").mkdir()
    (tmp_path / "secret.png").write_bytes(encoded(Image.new("RGB", (8, 8))))
    (tmp_path / "data/link.png").symlink_to(tmp_path / "secret.png")
    good = encoded(Image.new("RGB", (8, 8)))
    first = {"bytes": good, "path": None} if isinstance(value, dict) else good
    if isinstance(value, str):
        (tmp_path / "data/good.png").write_bytes(good)
        first = "good.png"
    rows = datasets.Dataset.from_dict({"image": [first, value], "label": ["a", "b"]})
    with pytest.raises(UserError, match=rf"row 1 \(from 0\) of train whose picture .*{said}"):
        case_of(NAME, vit, rows, rows, directory=str(tmp_path / "data")).prepare()


def test_an_image_processor_that_is_absent_or_needs_torchvision_is_refused(vit, tmp_path):
    with pytest.raises(UserError, match=r"an image processor that cannot be loaded: .*preprocessor_config\.json"):
        load_processor(TASKS[NAME], tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "TimmWrapperImageProcessor"}')
    with pytest.raises(UserError, match=r"(?s)works with Pillow alone.*does not need torchvision"):
        load_processor(TASKS[NAME], tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"auto_map": {"AutoImageProcessor": "code.Mine"}}')
    (tmp_path / "code.py").write_text("raise SystemExit('this code must not run')")
    with pytest.raises(UserError, match="an image processor that cannot be loaded"):
        load_processor(TASKS[NAME], tmp_path)
