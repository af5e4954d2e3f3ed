"""A report is a page of blocks: one HTML file that needs neither network nor scripts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kfp_finetune.reports.numbers import number

CELL_LIMIT = 4000
"""Characters of a table cell that are shown; a report is to be read, not to hold the data."""


@dataclass(frozen=True)
class Facts:
    """Names and values.

    Args:
        title: Heading of the block.
        rows: Each name with its value.
    """

    template: ClassVar[str] = "facts.html"
    title: str
    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Chart:
    """A drawing with what there is to say about it.

    Args:
        title: Heading of the block.
        svg: What `charts` made; plain text would be shown as text.
        caption: One or two sentences below it; may be empty.
    """

    template: ClassVar[str] = "chart.html"
    title: str
    svg: Markup
    caption: str = ""


@dataclass(frozen=True)
class Samples:
    """A table of text, which wraps and keeps its line breaks.

    Args:
        title: Heading of the block.
        columns: Heading of each column.
        rows: The cells of each row, as many as there are columns.
    """

    template: ClassVar[str] = "samples.html"
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Note:
    """A text, which keeps its line breaks.

    Args:
        title: Heading of the block.
        text: What there is to say.
        alarm: Whether it must not be overlooked.
    """

    template: ClassVar[str] = "note.html"
    title: str
    text: str
    alarm: bool = False


Block = Facts | Chart | Samples | Note


def page(title: str, subtitle: str, blocks: Sequence[Block]) -> str:
    """Render one self-contained HTML page.

    Args:
        title: Heading of the page.
        subtitle: The line below it; may be empty.
        blocks: What the page shows, in this order.

    Returns:
        The page, the same for the same input, and encodable as UTF-8 whatever it was given.
    """
    environment = Environment(
        loader=PackageLoader("kfp_finetune.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["clipped"] = _clipped
    html = environment.get_template("page.html").render(title=title, subtitle=subtitle, blocks=blocks)
    return html.encode("utf-8", "replace").decode("utf-8")


def _clipped(text: str) -> str:
    if len(text) <= CELL_LIMIT:
        return text
    return f"{text[:CELL_LIMIT]}… ({number(len(text) - CELL_LIMIT)} more characters)"
