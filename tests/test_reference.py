"""The reference has every public name, and their docstrings say what a caller has to know."""

from __future__ import annotations

import ast
import builtins
import inspect
import itertools
import re
import textwrap
import types
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import pytest

from asupplemented import errors
from docs.generated import fill
from tests.modules import PACKAGE, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULES: Final = (
    PACKAGE,
    *(f"{PACKAGE}.{name}" for name in ("abc", "limits", "telemetry", "testing", "transports")),
    f"{PACKAGE}.web",
)
"""The modules that users import from."""

VALUE: Final = re.compile(
    r"(?:All?|An?|Any|Bytes|Digests?|Each|Every|How|Instances|Many|None|Nothing|One|Ranges|The"
    r"|These|Up to|What|Where|Whether|Which|Build|Encode|Make|Open|Parse|Prepare|Read)\b"
)
"""How a docstring begins that describes what is returned, or what is made of the arguments."""

MADE: Final = re.compile(r"\b[Mm]ade by\b")
"""Says that users never call the constructor."""

ELSEWHERE: Final = re.compile(r"\b(?:[Ss]ee|[Aa]s|those of) `")
"""Refers to another entry, which has the arguments and the result."""

UNIT: Final = re.compile(
    r"\b(?:bytes?|seconds?|times?|part|share|fraction|factor|size|[KMG]iB)\b", re.IGNORECASE
)
SECTION: Final = re.compile(r"^(?:Returns|Yields):$", re.MULTILINE)


@dataclass(frozen=True)
class Entry:
    """A class, function, method or property of the reference."""

    name: str
    value: Any
    function: Any

    @property
    def doc(self) -> str:
        """Its docstring, and that of the contract which it fulfils."""
        own = inspect.getdoc(self.value) or ""
        return own if inspect.isclass(self.value) else own + LAWS.get(self.key, "")

    @property
    def key(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def tree(self) -> ast.AST:
        return ast.parse(textwrap.dedent(inspect.getsource(self.function)))


def public_values() -> Iterator[tuple[str, Any]]:
    """The public names of the modules for users and what they stand for, lazy ones included."""
    for name in MODULES:
        module = import_module(name)
        for each in module.__all__:
            if f"{name}.{each}" not in MODULES:
                yield f"{name}.{each}", getattr(module, each)


PUBLIC: Final = frozenset(id(value) for _, value in public_values())


def members_of(cls: type) -> Iterator[tuple[str, Any]]:
    """What a class defines, and what it has from bases of the library that are not public."""
    for base in cls.__mro__:
        if base is cls or (base.__module__.startswith(PACKAGE) and id(base) not in PUBLIC):
            yield from vars(base).items()


def find_entries() -> Iterator[Entry]:
    """Functions, classes, and what public classes define, each by the first name that it has."""
    seen: set[int] = set()
    for name, value in public_values():
        if id(value) in seen or not getattr(value, "__module__", "").startswith(PACKAGE):
            continue
        seen.add(id(value))
        if inspect.isfunction(value):
            yield Entry(name, value, inspect.unwrap(value))
        if inspect.isclass(value):
            yield Entry(name, value, value)
            for key, member in members_of(value):
                function = member.fget if isinstance(member, property) else member
                function = inspect.unwrap(getattr(function, "__func__", function))
                if inspect.isfunction(function) and not key.startswith("_"):
                    yield Entry(f"{name}.{key}", getattr(value, key), function)


CONTRACTS: Final = (f"{PACKAGE}.abc.", f"{PACKAGE}.testing.access")
ENTRIES: Final = list(find_entries())
LAWS: Final = {
    entry.key: f"\n\n{inspect.getdoc(entry.value) or ''}"
    for entry in ENTRIES
    if entry.function.__module__.startswith(CONTRACTS) and entry.value.__doc__
}
"""The docstrings of methods of contracts, which those of implementations need not repeat."""


def parameters(entry: Entry) -> list[inspect.Parameter]:
    """What callers pass; a class is called as its constructor is."""
    if isinstance(entry.value, property):
        return []
    if inspect.isclass(entry.value) and (
        inspect.isabstract(entry.value)
        or getattr(entry.value, "_is_protocol", False)
        or issubclass(entry.value, BaseException)
        or entry.value.__init__ is object.__init__
        or MADE.search(entry.doc)
    ):
        return []
    found = inspect.signature(entry.value).parameters.values()
    return [each for each in found if each.name not in {"self", "cls"} and each.name[0] != "_"]


def described(entry: Entry, name: str) -> str:
    """What the docstrings say of a parameter: its entry, that of the field, else the text."""
    doc = entry.doc
    if inspect.isclass(entry.value):
        for base in entry.value.__mro__:
            if base.__module__.startswith(PACKAGE):
                doc += "".join(f"\n    {key}: {text}" for key, text in fields(base).items())
    own = re.findall(rf"^    \*{{0,2}}{name}: ((?:.*\n?(?:     .*\n?|\n)*))", doc, re.MULTILINE)
    if own:
        return "\n".join(own)
    word = re.sub("_", "[_ -]", name.removesuffix("s"))
    return doc if re.search(rf"\b{word}(?:s|es)?\b", doc, re.IGNORECASE) else ""


def fields(cls: type) -> dict[str, str]:
    """The docstrings below the annotated names of a class."""
    try:
        [tree] = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except (OSError, TypeError):
        return {}
    found: dict[str, str] = {}
    assert isinstance(tree, ast.ClassDef)
    for node, after in itertools.pairwise(tree.body):
        if isinstance(node, ast.AnnAssign) and isinstance(after, ast.Expr):
            found[ast.unparse(node.target)] = ast.literal_eval(after.value)
    return found


def undescribed(entry: Entry) -> Iterator[str]:
    """What a caller has to know and the docstring of an entry does not say."""
    if not entry.doc.strip():
        yield "no docstring"
        return
    summary, _, _ = entry.doc.partition("\nArgs:")
    for each in parameters(entry):
        said = described(entry, each.name)
        if not (said or each.name == "session" or ELSEWHERE.search(entry.doc)):
            yield f"argument {each.name}"
        elif "float" in str(each.annotation) and not UNIT.search(said + summary):
            yield f"unit of {each.name}"
    if inspect.isclass(entry.value):
        return
    returned = str(inspect.signature(entry.function).return_annotation)
    is_value = isinstance(entry.value, property) or VALUE.match(entry.doc.lstrip())
    if not (
        is_value
        or returned in {"None", "Self"}
        or SECTION.search(entry.doc)
        or ELSEWHERE.search(entry.doc)
    ):
        yield f"returns ({returned}): {entry.doc.splitlines()[0]}"
    if returned.endswith("| None") and not re.search(r"\bNone\b", entry.doc):
        yield f"when it is None ({returned})"
    for error in raised(entry.tree):
        if not mentions(entry.doc, error):
            yield f"raises {error}"


def raised(tree: ast.AST) -> set[str]:
    """The names of the errors that a function raises itself."""
    found: set[str] = set()
    pending = list(ast.iter_child_nodes(next(ast.iter_child_nodes(tree))))
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Raise) and node.exc is not None:
            error = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            name = ast.unparse(error).rpartition(".")[2]
            if name[0].isupper() and name not in {"StopAsyncIteration", "AssertionError"}:
                found.add(name)
        pending.extend(ast.iter_child_nodes(node))
    return found


def mentions(doc: str, name: str) -> bool:
    error = getattr(errors, name, None) or getattr(builtins, name, None)
    names = [name] if error is None else [each.__name__ for each in error.__mro__[:-3]]
    return any(re.search(rf"\b{each}\b", doc) for each in names)


def entries_of(page: str) -> Iterator[str]:
    """The full names that the directives of a page make entries for."""
    module = ""
    for kind, name in re.findall(r"^\.\. ([\w:]+):: ([\w.]+)$", page, re.MULTILINE):
        if kind == "currentmodule":
            module = name
        elif kind == "automodule":
            yield from (f"{name}.{each}" for each in import_module(name).__all__)
        else:
            yield name if name.startswith(PACKAGE) else f"{module}.{name}"


def test_every_public_name_has_one_entry_in_the_reference() -> None:
    pages = sorted((ROOT / "docs" / "reference").glob("*.md"))
    found = {name for path in pages for name in entries_of(fill(path.read_text("utf-8")))}
    shown = {id(resolve(name)) for name in found if not is_alias(resolve(name))}
    missing = [
        name for name, value in public_values() if name not in found and id(value) not in shown
    ]
    assert missing == []


def resolve(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


def is_alias(value: object) -> bool:
    """Whether a value has no identity of its own: numbers and texts of limits, unions of types."""
    return isinstance(value, int | str | types.UnionType)


def test_every_public_callable_says_what_it_takes_gives_and_raises() -> None:
    assert len(ENTRIES) > 500
    problems = {entry.name: list(undescribed(entry)) for entry in ENTRIES}
    assert {name: problem for name, problem in problems.items() if problem} == {}


def silent(size: int, rate: float) -> str:
    """Does something."""
    raise ValueError(size, rate)


def half(size: int, rate: float) -> int | None:
    """Count something.

    Args:
        size: In bytes.
        rate: How fast.

    Returns:
        The count.
    """
    return size if rate else None


def complete(size: int, rate: float) -> int | None:
    """Count something.

    Args:
        size: In bytes.
        rate: Bytes per second.

    Returns:
        The count; None if the rate is 0.

    Raises:
        LookupError: The size is negative.
    """
    if size < 0:
        raise KeyError(size)
    return size if rate else None


class Holder:
    """Holds something.

    Args:
        size: In bytes.
    """

    def __init__(self, size: int, other: int) -> None:
        self.sum = size + other


class Product(Holder):
    """Holds something. Made by `complete`."""


@pytest.mark.parametrize(
    ("value", "problems"),
    [
        (
            silent,
            [
                "argument size",
                "argument rate",
                "returns (str): Does something.",
                "raises ValueError",
            ],
        ),
        (half, ["unit of rate", "when it is None (int | None)"]),
        (complete, []),
        (Holder, ["argument other"]),
        (Product, []),
    ],
)
def test_what_a_docstring_lacks_is_found(value: Any, problems: list[str]) -> None:
    assert list(undescribed(Entry(value.__name__, value, value))) == problems
