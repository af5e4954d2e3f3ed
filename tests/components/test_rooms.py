"""Every room has what a room has, and its README says what its interface is."""

import importlib
from pathlib import Path

import docstring_parser
import pytest
import yaml
from kfp.dsl.base_component import BaseComponent

ROOMS = sorted(path.parent for path in (Path(__file__).parents[2] / "components").glob("*/component.py"))


def interfaces(room: Path) -> list[BaseComponent]:
    module = importlib.import_module(f"kfp_finetune.components.{room.name}.component")
    return [value for value in vars(module).values() if isinstance(value, BaseComponent)]


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_the_readme_names_every_parameter_and_output(room: Path):
    readme = (room / "README.md").read_text()
    for component in interfaces(room):
        names = [*(component.component_spec.inputs or {}), *(component.component_spec.outputs or {})]
        assert [name for name in names if f"`{name}`" not in readme and name != "Output"] == []


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_the_docstring_describes_every_parameter(room: Path):
    for component in interfaces(room):
        described = {entry.arg_name for entry in docstring_parser.parse(component.python_func.__doc__).params}
        artifacts_and_parameters = {*(component.component_spec.inputs or {}), *(component.component_spec.outputs or {})}
        assert artifacts_and_parameters - described <= {"Output"}


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_the_metadata_has_the_ecosystem_s_keys(room: Path):
    metadata = yaml.safe_load((room / "metadata.yaml").read_text())
    assert list(metadata)[:4] == ["name", "stability", "dependencies", "lastVerified"]
    assert metadata["name"] == room.name
    assert any(entry["name"] == "Pipelines" for entry in metadata["dependencies"]["kubeflow"])


def test_every_package_is_packaged():
    import tomllib

    root = Path(__file__).parents[2]
    config = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    tops = {"kfp_finetune": "kfp_finetune", "components": "kfp_finetune.components"}
    tops |= {"pipelines": "kfp_finetune.pipelines", "client": "kfp_finetune.client"}
    found = {
        ".".join([package, *path.parent.relative_to(root / top).parts])
        for top, package in tops.items()
        for path in (root / top).rglob("__init__.py")
    }
    assert set(config["packages"]) == found | {"kfp_finetune.reports.templates"}
