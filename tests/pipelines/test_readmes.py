"""What the READMEs say of the pipelines' parameters is what their forms say."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from kfp_finetune.client.compile import PIPELINES
from kfp_finetune.client.parameters import read_parameters

ROOT = Path(__file__).parents[2]
READMES = [*((name, ROOT / "pipelines" / name / "README.md") for name in PIPELINES), (PIPELINES[0], ROOT / "README.md")]


def default(value: Any) -> str:
    if value in (None, ""):
        return "(required)" if value is None else "empty"
    return f"`{value if isinstance(value, str) else json.dumps(value).removesuffix('.0')}`"


@pytest.mark.parametrize(("name", "readme"), READMES, ids=lambda value: str(value).removeprefix(str(ROOT)))
def test_the_table_of_parameters_is_the_form(name: str, readme: Path):
    table = readme.read_text().partition("| Parameter | Default | Meaning |\n|---|---|---|\n")[2].partition("\n\n")[0]
    rows = dict(re.findall(r"^\| `(\w+)` (\|.*)$", table, re.MULTILINE))
    parameters = read_parameters(ROOT / "pipelines" / name / "pipeline.yaml")
    assert rows == {
        name: f"| {default(parameter.default)} | {' '.join(parameter.description.split())} |"
        for name, parameter in parameters.items()
    }


@pytest.mark.parametrize("readme", [readme for _, readme in READMES], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_to_a_file_leads_to_one(readme: Path):
    links = re.findall(r"\]\((?!http|#)([^)#]+)", readme.read_text())
    assert [link for link in links if not (readme.parent / link).exists()] == []
