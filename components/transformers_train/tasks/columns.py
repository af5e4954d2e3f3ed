"""Which columns of a dataset a task takes, found by names and by what is in them; else what the data looks like."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from kfp_finetune.components.transformers_train.tasks.needs import NEEDS, Need, Needs, needs_in_words
from kfp_finetune.errors import Problem, UserError

if TYPE_CHECKING:
    import datasets

KINDS = {
    "text": "text",
    "texts": "a list of text",
    "int": "a whole number",
    "ints": "a list of whole numbers",
    "label": "a ClassLabel",
    "labels": "a list of ClassLabels",
    "bool": "true or false",
    "float": "a number",
    "image": "a picture",
    "bytes": "bytes",
    "answers": "answers with text and answer_start",
    "object": "an object",
    "list": "a list",
    "nothing": "nothing in the first rows",
}
"""What a column's values can be, in words."""

LOOKED_AT = 100
LONGEST_QUOTE = 60
MOST_COLUMNS_SHOWN = 20


def quote(value: Any) -> str:
    """A value in a message, shortened."""
    text = repr(value)
    return text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}..."


def undecoded(rows: "datasets.Dataset") -> "datasets.Dataset":
    """Rows whose pictures are bytes and paths, not opened."""
    import datasets

    for name, feature in rows.features.items():
        if isinstance(feature, datasets.Image) and feature.decode:
            rows = rows.cast_column(name, datasets.Image(decode=False))
    return rows


def find_columns(name: str, rows: "datasets.Dataset", column_map: Mapping[str, str]) -> dict[str, str]:
    """The column for each key of a transformer type.

    Args:
        name: The transformer type.
        rows: The dataset's.
        column_map: The columns that the user named.

    Raises:
        UserError: If they do not fit, with what they look like, what is needed, and which type they fit.
    """
    looks = {column: (kind, value) for column, kind, value in _look(rows)}
    kinds = {column: kind for column, (kind, _) in looks.items()}
    if found := _find(name, kinds, column_map):
        return found
    problems = _named_wrongly(name, kinds, column_map) or [_misfit(name, looks, column_map)]
    raise UserError(problems)


def check_columns(name: str, rows: "datasets.Dataset", columns: Mapping[str, str]) -> None:
    """Checks that other rows, such as those held out, have the columns that were found.

    Args:
        name: The transformer type.
        rows: The other rows.
        columns: From `find_columns`.

    Raises:
        UserError: With every column that is not there or holds something else.
    """
    kinds = {column: kind for column, kind, _ in _look(rows)}
    if problems := _named_wrongly(name, kinds, columns):
        raise UserError(problems)


def types_that_fit(rows: "datasets.Dataset") -> list[str]:
    """The transformer types that can be trained on these columns, the most special first."""
    kinds = {column: kind for column, kind, _ in _look(rows)}
    return _types_that_fit(kinds)


def _types_that_fit(kinds: Mapping[str, str]) -> list[str]:
    return [name for name in NEEDS if _find(name, kinds, {})]


def _look(rows: "datasets.Dataset") -> Iterable[tuple[str, str, Any]]:
    """Each column with its kind and its first value that says something."""
    first = undecoded(rows.select(range(min(LOOKED_AT, len(rows)))))
    for column in rows.column_names:
        values = [value for value in first[column] if value not in (None, [])]
        value = values[0] if values else next((value for value in first[column] if value is not None), None)
        yield column, _kind_of(rows.features[column], value), value


def _kind_of(feature: Any, value: Any) -> str:
    import datasets

    item = getattr(feature, "feature", None)
    if isinstance(feature, datasets.ClassLabel):
        return "label"
    if isinstance(item, datasets.ClassLabel):
        return "labels"
    if isinstance(feature, datasets.Image) or (isinstance(value, dict) and value.keys() == {"bytes", "path"}):
        return "image"
    simple = {str: "text", bool: "bool", int: "int", float: "float", bytes: "bytes", type(None): "nothing"}
    if type(value) in simple:
        return simple[type(value)]
    if _is_answers(value):
        return "answers"
    if isinstance(value, list):
        kinds = {type(item) for item in value}
        return {frozenset({str}): "texts", frozenset({int}): "ints"}.get(frozenset(kinds), "list")
    return "object"


def _is_answers(value: Any) -> bool:
    """Whether a value is SQuAD's lists by name, or a list of answers."""
    one = value[0] if isinstance(value, list) and value else value
    return isinstance(one, dict) and {"text", "answer_start"} <= one.keys()


def _find(name: str, kinds: Mapping[str, str], column_map: Mapping[str, str]) -> dict[str, str] | None:
    for needs in _alternatives(name, column_map):
        columns: dict[str, str] = {}
        for need in sorted(needs, key=lambda need: need.only):
            if (column := _column_for(need, kinds, column_map, columns.values())) is not None:
                columns[need.key] = column
        if len(columns) == len(needs) and column_map.keys() <= columns.keys():
            return {need.key: columns[need.key] for need in needs}
    return None


def _alternatives(name: str, column_map: Mapping[str, str]) -> list[Needs]:
    """Of a pair whose first text alone the user named, only that one is meant."""
    if "text" not in column_map:
        return list(NEEDS[name])
    return [needs for needs in NEEDS[name] if ("text_pair" in _keys(needs)) == ("text_pair" in column_map)]


def _keys(needs: Needs) -> list[str]:
    return [need.key for need in needs]


def _column_for(
    need: Need, kinds: Mapping[str, str], column_map: Mapping[str, str], taken: Iterable[str]
) -> str | None:
    if need.key in column_map:
        column = column_map[need.key]
        return column if kinds.get(column) in need.kinds else None
    named = (name for name in need.names if kinds.get(name) in need.kinds)
    if (likeliest := next(named, None)) is not None or not need.only:
        return likeliest
    others = {*taken, *column_map.values()}
    fitting = [name for name, kind in kinds.items() if kind in need.kinds and name not in others]
    return fitting[0] if len(fitting) == 1 else None


def _named_wrongly(name: str, kinds: Mapping[str, str], column_map: Mapping[str, str]) -> list[Problem]:
    """What is wrong with the columns that were named, each by itself."""
    needs = {need.key: need for alternative in NEEDS[name] for need in alternative}
    problems = []
    for key, column in column_map.items():
        what = f"column_map.{key}"
        if key not in needs:
            allowed, mend = f"for {name} the keys {', '.join(needs)}", "Take the key out."
        elif column not in kinds:
            allowed, mend = f"one of the columns {', '.join(kinds) or '(none)'}", "Name a column that there is."
        elif kinds[column] not in needs[key].kinds:
            allowed = f"a column with {needs[key].words}"
            mend = f"Name another column; {column} holds {KINDS[kinds[column]]}."
        else:
            continue
        problems.append(Problem(what, repr(column), allowed, mend))
    return problems


def _misfit(name: str, looks: Mapping[str, tuple[str, Any]], column_map: Mapping[str, str]) -> Problem:
    shown = [
        f"{column} ({KINDS[kind]}{'' if value is None else f', such as {quote(value)}'})"
        for column, (kind, value) in looks.items()
    ]
    more = f" and {len(shown) - MOST_COLUMNS_SHOWN} more" if len(shown) > MOST_COLUMNS_SHOWN else ""
    kinds = {column: kind for column, (kind, _) in looks.items()}
    other = next((fit for fit in _types_that_fit(kinds) if fit != name), None)
    advice = f", or take transformer_type {other}, which they fit" if other else ""
    keys = [key for key in _keys(NEEDS[name][-1]) if key not in column_map]
    example = ", ".join(f'"{key}": "..."' for key in keys)
    return Problem(
        "dataset",
        f"the columns {', '.join(shown[:MOST_COLUMNS_SHOWN]) or '(none)'}{more}",
        f"for {name} {needs_in_words(name)}",
        f"Name the columns with column_map {{{example}}}{advice}.",
    )
