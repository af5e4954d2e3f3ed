"""What is published of an export, and how it is laid out there: the address itself is a model that loads."""

import hashlib
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from kfp_finetune.errors import StepError
from kfp_finetune.manifests import MANIFEST_NAME, FileEntry, Manifest
from kfp_finetune.series import MERGED_FOLDER
from kfp_finetune.sources.redaction import redact
from kfp_finetune.training.epochs import ADAPTER_FOLDER

CARD_NAME = "README.md"
"""The model card, in an export as where it is published."""

QUANTIZED_FOLDER = "quantized"
"""Folder of the copy with fewer bits, likewise."""


@dataclass(frozen=True)
class Upload:
    """A file that is to be published.

    Args:
        path: Where it is to lie, with forward slashes.
        size: In bytes.
        sha256: Of its content, hexadecimal.
        source: Where its content lies, or the content itself.
    """

    path: str
    size: int
    sha256: str
    source: Path | bytes

    def open(self) -> BinaryIO:
        """Its content, to be read."""
        return self.source.open("rb") if isinstance(self.source, Path) else BytesIO(self.source)


@dataclass(frozen=True)
class Layout:
    """What is published of an export.

    Args:
        key: The export's name.
        files: Everything but the manifest.
        manifest: The manifest of these files.
    """

    key: str
    files: tuple[Upload, ...]
    manifest: Upload

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in (*self.files, self.manifest))


def lay_out(export: Path, manifest: Manifest) -> Layout:
    """Lays out `merged/` at the root, `adapter/` and `quantized/` in folders, the model card and a manifest of these.

    The report of the run stays behind: it shows rows of the dataset.

    Args:
        export: The export's directory.
        manifest: What it holds.

    Raises:
        StepError: If files are not as the manifest says.
    """
    found = {place: entry for entry in manifest.files if (place := _place(entry.path))}
    changed = [entry.path for entry in found.values() if not _is_there(export / entry.path, entry)]
    if changed or not found:
        what = f"which lacks {', '.join(changed[:5])} or has it in another size" if changed else "which holds no model"
        raise StepError(f"nothing is published of {export}, {what}; export again")
    files = tuple(
        Upload(place, entry.size, entry.sha256, export / entry.path) for place, entry in sorted(found.items())
    )
    described = replace(
        manifest,
        source=redact(manifest.source),
        files=tuple(FileEntry(file.path, file.size, file.sha256) for file in files),
        facts={name: redact(fact) if isinstance(fact, str) else fact for name, fact in manifest.facts.items()},
    )
    text = described.to_json().encode()
    return Layout(manifest.key, files, Upload(MANIFEST_NAME, len(text), hashlib.sha256(text).hexdigest(), text))


def _place(path: str) -> str:
    """Where a file of an export is published; empty if it is not."""
    folder, _, rest = path.partition("/")
    if folder == MERGED_FOLDER and rest != CARD_NAME:
        return rest
    return path if folder in (ADAPTER_FOLDER, QUANTIZED_FOLDER) or path == CARD_NAME else ""


def _is_there(path: Path, entry: FileEntry) -> bool:
    return path.is_file() and path.stat().st_size == entry.size
