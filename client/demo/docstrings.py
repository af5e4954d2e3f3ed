"""Instruction pairs from the docstrings of the standard library: a data set that every interpreter carries.

Python modules are read as source and never imported, so nothing they would do on import happens. Modules and functions
written in C have no source here, so a fixed list of harmless modules is imported for them.
"""

import ast
import builtins
import contextlib
import functools
import hashlib
import importlib
import inspect
import io
import json
import re
import sys
import sysconfig
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

LONGEST_ANSWER = 200
SHORTEST_ANSWER = 16

_SKIPPED_MODULES = """
__phello__ antigravity distutils encodings ensurepip idlelib lib2to3 pydoc_data test this tkinter turtle turtledemo
"""
_SKIPPED_PARTS = frozenset({"test", "tests", "idle_test", "site-packages"})
_IMPORTED_MODULES = """
builtins array atexit binascii bisect bz2 cmath codecs collections contextvars csv datetime decimal errno fcntl
functools gc grp hashlib heapq hmac io itertools json locale lzma marshal math mmap operator os pickle posix pwd
pyexpat random re readline resource select signal socket sqlite3 ssl stat statistics string struct symtable sys
syslog termios threading time tracemalloc types unicodedata weakref zlib zoneinfo
"""
_RENAMED_MODULES = {"posixpath": "os.path", "ntpath": "os.path", "posix": "os"}
_QUESTIONS = {
    "callable": "What does {name} do?",
    "class": "What is {name}?",
    "module": "What is the module {name} for?",
}
_TRIVIAL = re.compile(
    r"(return (repr|str|len|hash|key|value|self)\b.{0,20}\W|implement |initialize self|helper for|"
    r"create and return a new object|see help\(|x\.__|see the .{0,40}documentation\.?$|see \S+$|"
    r"(todo|internal|private|deprecated)\b)",
    re.IGNORECASE,
)
_SIGNATURE = re.compile(r"^[\w.]+\([^\n]*\)(\s*->\s*[^\n]*?)?(\s+--\s+|\s*:\s+|\s*\n\s*|$)")


@dataclass(frozen=True)
class Pair:
    """A question about a name of the standard library and its docstring's opening as the answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class _Documented:
    name: str
    kind: str
    docstring: str


def docstring_pairs() -> list[Pair]:
    """Collect the pairs of the running interpreter, without printing or opening anything.

    Returns:
        The pairs, in the order of their questions; no question and no answer occurs twice.
    """
    return list(_all_pairs())


@functools.cache
def _all_pairs() -> tuple[Pair, ...]:
    by_question: dict[str, str] = {}
    for entry in _documented():
        answer = answer_from(entry.docstring)
        if answer:
            by_question.setdefault(_QUESTIONS[entry.kind].format(name=entry.name), answer)
    questions_by_answer: dict[str, str] = {}
    for question in sorted(by_question, key=lambda text: (len(text), text)):
        questions_by_answer.setdefault(_plain(by_question[question]), question)
    return tuple(Pair(question, by_question[question]) for question in sorted(questions_by_answer.values()))


def answer_from(docstring: str) -> str:
    """Take a docstring's first paragraph, which by convention sums up the rest, as one line.

    Args:
        docstring: The docstring as written, with its indentation.

    Returns:
        As many of the paragraph's sentences as fit in `LONGEST_ANSWER` characters, or an empty string if it says too
        little or its first sentence is too long.
    """
    text = inspect.cleandoc(docstring)
    for _ in range(4):
        text = _SIGNATURE.sub("", text, count=1).strip()
    answer = ""
    for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", re.split(r"\n\s*\n|\s*>>>", text)[0]):
        longer = " ".join([*answer.split(), *sentence.split()])
        if len(longer) > LONGEST_ANSWER:
            break
        answer = longer
    says_enough = len(answer) >= SHORTEST_ANSWER and answer[0].isalpha() and " " in answer
    return answer if says_enough and answer[-1] != ":" and not _TRIVIAL.match(answer) else ""


def write_dataset(directory: Path, held_out: float = 0.05, seed: int = 7) -> None:
    """Write `train.jsonl` and `test.jsonl`, one object with `input` and `output` a line.

    Pairs that resemble each other (the same start of an answer, or the same last part of the name with answers that
    start alike) stay on one side, so that the test measures what was learnt and not what was seen.

    Args:
        directory: Where the two files go; made if absent.
        held_out: Share of the pairs that goes to the test file, above 0 and below 1. Default: 0.05.
        seed: Another seed draws another split. Default: 7.

    Raises:
        ValueError: If `held_out` is not between 0 and 1.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out must lie between 0 and 1, not {held_out}.")
    pairs = docstring_pairs()
    groups = sorted(_groups(pairs), key=lambda group: hashlib.sha256(f"{seed} {group[0].question}".encode()).digest())
    sides: dict[str, list[Pair]] = {"test": [], "train": []}
    for group in groups:
        sides["test" if len(sides["test"]) + len(group) <= held_out * len(pairs) else "train"].extend(group)
    directory.mkdir(parents=True, exist_ok=True)
    sides["test"].sort(key=_telling_first(sides["train"]))
    for side, chosen in sides.items():
        rows = (json.dumps({"input": pair.question, "output": pair.answer}, ensure_ascii=False) for pair in chosen)
        (directory / f"{side}.jsonl").write_text("".join(row + "\n" for row in rows), encoding="utf-8")


def _telling_first(train: list[Pair]) -> Callable[[Pair], tuple[bool, int, int, str]]:
    """Order that begins with the questions that a small model can be expected to have an idea about.

    These ask about a name that begins with the first word of its own answer ("set_debug": "Set the ..."), a word that
    begins many answers of the training rows.
    """
    common = Counter(_plain(pair.answer).partition(" ")[0] for pair in train)

    def rank(pair: Pair) -> tuple[bool, int, int, str]:
        name = pair.question.removesuffix(" do?").rpartition(".")[2].lower()
        verb = _plain(pair.answer).partition(" ")[0]
        is_telling = pair.question.endswith(" do?") and bool(verb) and name.startswith(verb)
        return not is_telling, -common[verb], len(pair.question), pair.question

    return rank


def _groups(pairs: list[Pair]) -> list[list[Pair]]:
    """Join pairs that share a mark of resemblance, also through others (union-find)."""
    parent = list(range(len(pairs)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first_with: dict[tuple[str, ...], int] = {}
    for index, pair in enumerate(pairs):
        words = _plain(pair.answer).split()
        last_part = re.split(r"[.\s]", pair.question.removesuffix(" do?").removesuffix(" for?").removesuffix("?"))[-1]
        for mark in (("answer", *words[:10]), ("name", last_part.lower(), *words[:3])):
            parent[root(index)] = root(first_with.setdefault(mark, index))
    members: dict[int, list[Pair]] = {}
    for index, pair in enumerate(pairs):
        members.setdefault(root(index), []).append(pair)
    return list(members.values())


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _documented() -> Iterator[_Documented]:
    for path, name in _sources():
        with warnings.catch_warnings(), contextlib.suppress(SyntaxError, UnicodeDecodeError, OSError):
            warnings.simplefilter("ignore")
            yield from _from_source(ast.parse(path.read_bytes()), _RENAMED_MODULES.get(name, name))
    for name in _IMPORTED_MODULES.split():
        module = _imported(name)
        if module is not None:
            yield from _from_module(module, _RENAMED_MODULES.get(name, name))


def _sources() -> Iterator[tuple[Path, str]]:
    """Yield the source files of public modules with their dotted names."""
    library = Path(sysconfig.get_path("stdlib"))
    for top in sorted(sys.stdlib_module_names - set(_SKIPPED_MODULES.split())):
        single, package = library / f"{top}.py", library / top
        for path in [single] if single.is_file() else sorted(package.rglob("*.py")):
            parts = path.relative_to(library).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            if not any(part.startswith("_") or part in _SKIPPED_PARTS for part in parts):
                yield path, ".".join(parts)


def _from_source(node: ast.AST, name: str) -> Iterator[_Documented]:
    """Yield a module or class and the public functions and classes in its body."""
    kind = {ast.Module: "module", ast.ClassDef: "class"}.get(type(node), "callable")
    docstring = ast.get_docstring(node, clean=False)  # type: ignore[arg-type]
    if docstring:
        yield _Documented(name, kind, docstring)
    if kind == "callable":
        return
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if not child.name.startswith("_"):
            yield from _from_source(child, f"{name}.{child.name}")


def _imported(name: str) -> ModuleType | None:
    """Import a module quietly; None where this platform lacks it."""
    quiet = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ImportError:
            return None


def _docstring(thing: object) -> str:
    docstring = getattr(thing, "__doc__", None)
    return docstring if isinstance(docstring, str) else ""


def _from_module(module: ModuleType, name: str) -> Iterator[_Documented]:
    """Yield what an imported module defines in C: its own docstring, functions, classes and methods.

    Hooks such as `sys.displayhook` are left out, because shells and debuggers replace them.
    """
    prefix = "" if module is builtins else f"{name}."
    if not hasattr(module, "__file__") and _docstring(module):
        yield _Documented(name, "module", _docstring(module))
    for attribute, value in sorted(vars(module).items()):
        is_replaceable = attribute.endswith("hook")
        if attribute.startswith("_") or is_replaceable or not _docstring(value):
            continue
        if inspect.isbuiltin(value):
            yield _Documented(prefix + attribute, "callable", _docstring(value))
        elif inspect.isclass(value) and value.__module__.partition(".")[0].lstrip("_") in (name, "builtins"):
            yield _Documented(prefix + attribute, "class", _docstring(value))
            for member, method in sorted(vars(value).items()):
                if inspect.isroutine(method) and _docstring(method) and not member.startswith("_"):
                    yield _Documented(f"{prefix}{attribute}.{member}", "callable", _docstring(method))
