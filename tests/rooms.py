"""The rooms in components/, their KFP interfaces, and what is written in them."""

import ast
import importlib
import inspect
from pathlib import Path

from kfp.dsl.base_component import BaseComponent

ROOMS = sorted(path.parent for path in (Path(__file__).parents[1] / "components").glob("*/component.py"))


def interfaces(room: Path) -> list[BaseComponent]:
    """The components of a room."""
    module = importlib.import_module(f"kfp_finetune.components.{room.name}.component")
    return [value for value in vars(module).values() if isinstance(value, BaseComponent)]


def body_of(component: BaseComponent) -> list[ast.stmt]:
    """The statements of a component's function."""
    (function,) = ast.parse(inspect.getsource(component.python_func)).body
    return function.body


def imports_of(node: ast.AST) -> list[ast.Import | ast.ImportFrom]:
    """The imports in a statement and below it."""
    return [part for part in ast.walk(node) if isinstance(part, ast.ImportFrom | ast.Import)]
