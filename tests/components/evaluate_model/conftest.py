"""The Hub on loopback that the sources' tests have too, with the data of a task, made on the spot."""

import pytest
import yaml
from arc import parquet, questions
from servers.hub import Hub
from sources.conftest import hub, quiet_machine

__all__ = ["hub", "quiet_machine"]


@pytest.fixture
def arc(hub: Hub) -> Hub:
    """A Hub that has the dataset of the tasks arc_easy and arc_challenge, each a configuration of its own."""
    configs = [
        {
            "config_name": name,
            "data_files": [{"split": split, "path": f"{name}/{split}-*"} for split in ("train", "validation", "test")],
        }
        for name in ("ARC-Easy", "ARC-Challenge")
    ]
    files: dict[str, bytes | str] = {"README.md": f"---\n{yaml.safe_dump({'configs': configs})}---\n"}
    for name, number in ("ARC-Easy", 12), ("ARC-Challenge", 8):
        for split in ("train", "validation", "test"):
            files[f"{name}/{split}-00000.parquet"] = parquet(questions(number))
    hub.add("dataset", "allenai/ai2_arc", files)
    return hub
