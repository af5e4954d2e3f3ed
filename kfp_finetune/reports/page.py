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
        is_wide: Whether there are so many that they go into two columns.
    """

    template: ClassVar[str] = "facts.html"
    title: str
    rows: Sequence[tuple[str, str]]
    is_wide: bool = False


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
class Figures:
    """A table of figures, which is scrolled where there is no room for its columns.

    Args:
        title: Heading of the block.
        columns: Heading of each column; the first one's cells are names.
        rows: The cells of each row, as many as there are columns.
        caption: One or two sentences below it; may be empty.
    """

    template: ClassVar[str] = "figures.html"
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Tile:
    """A figure that is to be seen first.

    Args:
        name: What was measured.
        before: Its value before.
        after: Its value after.
        change: What became of it, in a few words.
        mood: "good", "bad" or "": the colour of the change.
    """

    name: str
    before: str
    after: str
    change: str
    mood: str = ""


@dataclass(frozen=True)
class Verdict:
    """What it all came to, in a sentence and a few figures.

    Args:
        title: Heading of the block: the verdict.
        text: The sentence that says why.
        tiles: The figures.
        mood: "good", "bad" or "": the colour of the block.
    """

    template: ClassVar[str] = "verdict.html"
    title: str
    text: str
    tiles: Sequence[Tile]
    mood: str = ""


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


Block = Facts | Chart | Samples | Figures | Verdict | Note


@dataclass(frozen=True)
class Part:
    """Blocks that belong together.

    Args:
        title: Heading of the part.
        blocks: What it shows, in this order.
    """

    template: ClassVar[str] = "part.html"
    title: str
    blocks: Sequence[Block]


def page(title: str, subtitle: str, blocks: Sequence[Block | Part]) -> str:
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
    environment.filters["clipped"] = clip
    html = environment.get_template("page.html").render(title=title, subtitle=subtitle, blocks=blocks)
    return html.encode("utf-8", "replace").decode("utf-8")


def clip(text: str, limit: int = CELL_LIMIT) -> str:
    """The start of a long text, and how much is left.

    Args:
        text: Of any length.
        limit: Characters that are kept.
    """
    return text if len(text) <= limit else f"{text[:limit]}… ({number(len(text) - limit)} more characters)"
