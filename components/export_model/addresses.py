"""How the addresses of a model and of its dataset are shown to whoever reads about an export."""

import re
from pathlib import Path

from kfp_finetune.sources.hub_address import ENDING_OF_A_FILE, is_hub_name
from kfp_finetune.sources.source import SCHEME


def public(address: str) -> str:
    """An address that tells readers elsewhere something: of a path its last part alone.

    Args:
        address: As the user wrote it.
    """
    name = local_name(address)
    if not name:
        return address
    return f"{name}, {'local files' if ENDING_OF_A_FILE.search(name) else 'a local folder'}"


def local_name(address: str) -> str:
    """The last part of a path; empty for any other address.

    Args:
        address: As the user wrote it.
    """
    found = SCHEME.fullmatch(address)
    if found and found[1].lower() != "file":
        return ""
    path = Path(found[2] if found else address)
    is_path = bool(found) or not is_hub_name(address) or path.exists()
    return path.name if is_path else ""


def last_part(address: str) -> str:
    """A short name for a model; the rest of its address is told where it belongs.

    Args:
        address: As the user wrote it.
    """
    name = address.split("@")[0].rstrip("/").rpartition("/")[2] if "?" not in address else ""
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-")[:80] or "A model"
