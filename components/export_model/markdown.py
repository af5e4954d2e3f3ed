"""Markdown in which texts from outside mean nothing but themselves."""

import re
from collections.abc import Iterable, Sequence

from kfp_finetune.sources.redaction import redact

LONGEST_TEXT = 300
LINK = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(?:[/?#][A-Za-z0-9._~:/?#@!$&'+,;=%-]*)?")


def block(language: str, *lines: str) -> str:
    """A block of code, of lines that are ours.

    Args:
        language: What it is written in.
        lines: None of them begins with a fence.
    """
    return "\n".join([f"```{language}", *lines, "```"])


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """A section with a table, unless it would be empty.

    Args:
        title: Of the section.
        head: Of the table.
        rows: Cells are Markdown already.
    """
    if rows:
        lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
        yield "\n".join([f"## {title}", "", *(f"| {' | '.join(line)} |" for line in lines)])


def one_line(text: str) -> str:
    """A text in one line, of what can be shown, not too long and without secrets."""
    shown = "".join(letter if letter.isprintable() else " " for letter in redact(text))
    line = " ".join(shown.split())
    return line if len(line) <= LONGEST_TEXT else f"{line[:LONGEST_TEXT]}…"


def code(text: str) -> str:
    """A text as Markdown's code, in which nothing has a meaning; empty for an empty one."""
    line = one_line(text)
    if not line:
        return ""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def inline(text: str) -> str:
    """A text in which Markdown and HTML mean nothing."""
    return re.sub(r"([\\`*_{}\[\]()<>#!|~&$])", r"\\\1", one_line(text))


def link(address: str) -> str:
    """An address that can be followed; any other text as it is."""
    shown = redact(address)
    return f"<{shown}>" if LINK.fullmatch(shown) else code(shown)
