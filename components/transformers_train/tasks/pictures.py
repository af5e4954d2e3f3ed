"""Pictures as a dataset has them: bytes, or files in the dataset's directory."""

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_finetune.components.transformers_train.tasks.columns import quote
from kfp_finetune.components.transformers_train.tasks.rows import refuse_row
from kfp_finetune.lines import LARGEST_ROW_BYTES

if TYPE_CHECKING:
    from PIL.Image import Image

DEEP_MODES = ("I", "F")
"""Pillow cuts their values off at 255, which leaves white."""


def picture_bytes(value: Any, directory: Path | None, place: str) -> bytes:
    """The bytes of a picture's file, which are known to be a picture.

    Args:
        value: Bytes, a path, or an object with either.
        directory: Of the dataset; no file outside is read.
        place: Which row it is, for messages.

    Raises:
        UserError: If there is no such file or it cannot be opened as a picture.
    """
    if isinstance(value, dict):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    data = value if isinstance(value, bytes) else _read(value, directory, place)
    try:
        open_picture(data)
    except Exception as error:  # Pillow's readers raise nearly anything for a broken file
        raise refuse_row(
            place, f"whose picture cannot be opened: {error or type(error).__name__}", "a picture that Pillow can open"
        ) from error
    return data


def _read(name: Any, directory: Path | None, place: str) -> bytes:
    allowed = "a picture, or the path of its file in the dataset's directory, in every row"
    if not isinstance(name, str) or not name or "\0" in name or directory is None:
        raise refuse_row(place, f"whose picture is {quote(name)}", allowed)
    root = directory.resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root) or not path.is_file():
        raise refuse_row(place, f"whose picture is {quote(name)}, and there is no such file", allowed)
    if path.stat().st_size > LARGEST_ROW_BYTES:
        raise refuse_row(place, f"whose picture {quote(name)} is too large", f"at most {LARGEST_ROW_BYTES:,} bytes")
    return path.read_bytes()


def open_picture(data: bytes) -> "Image":
    """A picture in colours, turned as its camera was held; one with far too many pixels is an error.

    Args:
        data: A file's bytes.
    """
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(data)) as picture:
            if picture.mode.startswith(DEEP_MODES):
                raise ValueError(f"its pixels have more than 8 bits (mode {picture.mode})")
            return ImageOps.exif_transpose(picture).convert("RGB")
