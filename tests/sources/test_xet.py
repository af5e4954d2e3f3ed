"""Large files by Xet where it is there, with the real hf_xet and a store in a folder; and by HTTP where it fails."""

from pathlib import Path

import hf_xet
import pytest
from servers.hub import Hub

from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset
from kfp_finetune.sources import arrival

LARGE = "".join(f'{{"input": "{number}"}}\n' for number in range(100_000))


@pytest.fixture
def xet(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A Hub with a dataset whose one file is in a store of chunks."""
    monkeypatch.setattr(arrival, "PART_BYTES", 2**19)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    hub.xet_url = f"local://{tmp_path}/store"
    path = tmp_path / "rows.jsonl"
    path.write_text(LARGE)
    with hf_xet.XetSession().new_upload_commit(endpoint=hub.xet_url) as commit:
        uploaded = commit.start_upload_file(str(path))
    hub.add("dataset", "org/rows", {"rows.jsonl": LARGE})
    hub.repositories["dataset", "org/rows"].xet_hashes["rows.jsonl"] = uploaded.result().xet_info.hash
    return hub


def test_a_file_comes_from_the_store_of_chunks(xet: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    manifest = initialize_dataset("org/rows", str(tmp_path / "workspace"))
    assert (tmp_path / "workspace" / manifest.path / "rows.jsonl").read_text() == LARGE
    assert xet.bodies() == []
    asked = [request for request in xet.requests if "xet-read-token" in request.path]
    assert {request.headers["authorization"] for request in asked} == {"Bearer hf_secret"}
    assert asked[0].path == f"/api/datasets/org/rows/xet-read-token/{manifest.revision}"


def test_a_store_that_fails_is_left_and_the_file_comes_by_http(xet: Hub, tmp_path: Path) -> None:
    xet.repositories["dataset", "org/rows"].xet_hashes["rows.jsonl"] = "0" * 64
    manifest = initialize_dataset("org/rows", str(tmp_path / "workspace"))
    assert (tmp_path / "workspace" / manifest.path / "rows.jsonl").read_text() == LARGE
    assert xet.bodies()


def test_xet_can_be_switched_off(xet: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    initialize_dataset("org/rows", str(tmp_path / "workspace"))
    assert xet.bodies() and not any("xet" in request.path for request in xet.requests)
