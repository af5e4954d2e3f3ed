"""Every room has what a room has, and its README says what its interface is."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import docstring_parser
import pytest
import yaml
from kfp.dsl.base_component import BaseComponent
from rooms import ROOMS, body_of, imports_of, interfaces

from kfp_finetune import errors
from kfp_finetune._version import VERSION_VARIABLE


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


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_step_compares_versions_before_it_imports_anything_else(room: Path):
    for component in interfaces(room):
        body = body_of(component)
        frames = [
            node for node in body if isinstance(node, ast.With) and ast.unparse(node.items[0]) == "clear_errors()"
        ]
        before = [ast.unparse(found) for node in body if node not in frames for found in imports_of(node)]
        assert before == ["from kfp_finetune.errors import clear_errors"], component.name
        assert len(frames) == 1, component.name


def test_the_table_of_images_names_the_steps_of_each():
    table = (ROOMS[0].parents[1] / "containers/README.md").read_text()
    rows = {line.split("|")[1].strip(" `"): line.split("|")[2] for line in table.splitlines() if line.startswith("| `")}
    for component in (component for room in ROOMS for component in interfaces(room)):
        image = component.component_spec.implementation.container.image.rpartition("/")[2].partition(":")[0]
        assert component.python_func.__name__ in re.findall(r"\w+", rows[image])


def write_stale_package(root: Path, component: BaseComponent) -> None:
    """A package of another version, whose modules lack every name that the component asks for."""
    modules = {found.module for node in body_of(component) for found in imports_of(node)}
    for module in modules:
        path = root.joinpath(*module.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for folder in (root / "kfp_finetune").rglob("*/"):
        (folder / "__init__.py").touch()
    (root / "kfp_finetune/__init__.py").touch()
    (root / "kfp_finetune/errors.py").write_text(Path(errors.__file__).read_text())
    (root / "kfp_finetune/_version.py").write_text(f'VERSION = "0.0.7"\nVERSION_VARIABLE = "{VERSION_VARIABLE}"\n')


def execute(component: BaseComponent, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """Runs the container's command in a folder as KFP's launcher does, with a value for each input and output."""

    def artifacts(specs: dict) -> dict:
        kinds = {name: spec.type.partition("@")[0] for name, spec in specs.items() if "@" in spec.type}
        return {
            name: {"artifacts": [{"name": name, "uri": str(folder / name), "type": {"schemaTitle": kind}}]}
            for name, kind in kinds.items()
        }

    spec = component.component_spec
    inputs, outputs = spec.inputs or {}, spec.outputs or {}
    needed = {name: {} if entry.type == "TaskConfig" else "x" for name, entry in inputs.items()}
    values = {name: needed[name] if entry.default is None else entry.default for name, entry in inputs.items()}
    given = {"parameterValues": values, "artifacts": artifacts(inputs)}
    asked = {"artifacts": artifacts(outputs), "outputFile": str(folder / "outputs.json")}
    container = spec.implementation.container
    arguments = [text.replace("{{$}}", json.dumps({"inputs": given, "outputs": asked})) for text in container.args]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        [*container.command, *arguments],
        cwd=folder,
        env=os.environ | {"PATH": path, "TMPDIR": str(folder)} | environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_step_in_an_image_of_another_version_ends_with_one_message_whatever_the_image_lacks(
    room: Path, tmp_path: Path
):
    for component in interfaces(room):
        root = tmp_path / component.name
        write_stale_package(root, component)
        done = execute(component, root, PYTHONPATH=str(root), **{VERSION_VARIABLE: "0.1.0"})
        assert done.returncode == errors.USER_ERROR_STATUS, done.stdout + done.stderr
        assert "one that holds kfp-finetune 0.0.7, in a pipeline that was compiled from 0.1.0" in done.stderr
        assert "Traceback" not in done.stdout + done.stderr


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
