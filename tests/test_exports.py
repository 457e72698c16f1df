"""Every public module says in ``__all__``, a tuple, what it offers: all of it, and only that."""

from __future__ import annotations

import ast
import importlib
import re
from typing import TYPE_CHECKING

import pytest

from tests.modules import EXTRAS, PACKAGE, ROOT, find_modules

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

NAMES = frozenset(
    {
        *(
            "AllImages",
            "AuthFileCredentials",
            "BlobStream",
            "CopyReport",
            "Descriptor",
            "Digest",
            "Explanation",
        ),
        *(
            "Image",
            "Manifest",
            "Platform",
            "Reference",
            "Resolution",
            "Session",
            "Signature",
        ),
        *("Source", "SpecificImages", "SupplementedReference", "SupplementedSource"),
        *("SystemImage", "copy", "parse_reference", "supplement"),
        *("ConfigurationPaths", "Proxies", "RegistryLimits", "RegistryOptions", "SignaturePlaces"),
        *("BreakerPolicy", "RetryPolicy", "Timeouts", "reload_configuration"),
        *("Context", "CredentialLike", "Opening", "open_verified", "register_transport"),
        *("CacheStats", "LayoutCache", "LocalLease", "ObjectStore", "RedisLease", "TieredCache"),
        *("Image", "ImageManifest", "Index", "Selection", "Served", "open_image"),
    }
)
"""What users type, errors aside."""

PUBLIC = {name: module for name, module in find_modules().items() if module.is_public}


def statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run on import, those in branches included."""
    for node in body:
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test) != "TYPE_CHECKING":
            yield from statements([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            handlers = [statement for handler in node.handlers for statement in handler.body]
            yield from statements([*node.body, *handlers, *node.orelse])


def defined(source: str) -> set[str]:
    """The public classes, functions and type aliases of a module; constants may stay at home."""
    names: set[str] = set()
    for node in statements(ast.parse(source).body):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                names.add(name)
            case ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.AnnAssign(target=ast.Name(id=name), annotation=ast.Name(id="TypeAlias")):
                names.add(name)
            case _:
                pass
    return {name for name in names if not name.startswith("_")}


def exported(source: str) -> object:
    """The literal value of ``__all__``, None where there is none."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return None


def is_empty(source: str) -> bool:
    """Whether a module is a docstring at most: it has nothing to offer."""
    body = ast.parse(source).body
    return all(isinstance(node, ast.Expr) for node in body)


def faults(source: str) -> list[str]:
    """What is wrong with the ``__all__`` of a module, by its text."""
    names = exported(source)
    if names is None:
        return [] if is_empty(source) else ["no __all__"]
    if not isinstance(names, tuple):
        return ["__all__ is not a tuple"]
    absent = sorted(defined(source).difference(names))
    twice = sorted({name for name in names if names.count(name) > 1})
    return [f"not in __all__: {name}" for name in absent] + [f"twice: {name}" for name in twice]


def absent(name: str) -> list[str]:
    """What the ``__all__`` of a module names and it has not."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in EXTRAS:
            raise
        return []  # an optional dependency is not installed
    names: Iterable[str] = getattr(module, "__all__", ())
    return [each for each in names if not hasattr(module, each)]


def test_all_is_complete() -> None:
    found = {name: faults(module.source) for name, module in PUBLIC.items()}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_all_names_what_exists() -> None:
    assert {name: wrong for name in PUBLIC if (wrong := absent(name))} == {}


PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))
FOR_USERS = frozenset(
    {PACKAGE, *(f"{PACKAGE}.{name}" for name in ("abc", "limits", "testing", "web"))}
)
"""The modules that pages and examples import from."""


@pytest.mark.parametrize("path", [*PAGES, *EXAMPLES], ids=lambda path: path.name)
def test_documentation_imports_from_the_modules_for_users(path: Path) -> None:
    text = path.read_text("utf-8")
    imported = set(re.findall(rf"^\s*(?:from|import) ({PACKAGE}[\w.]*)", text, re.MULTILINE))
    assert imported <= FOR_USERS


def test_what_hooks_and_progress_callbacks_are_told_is_public() -> None:
    package = importlib.import_module(PACKAGE)
    events = importlib.import_module(f"{PACKAGE}.events")
    assert set(events.__all__) <= set(package.__all__)


def test_the_public_names_are_sorted_and_are_what_users_type() -> None:
    package = importlib.import_module(PACKAGE)
    errors = importlib.import_module(f"{PACKAGE}.errors")
    assert package.__all__ == tuple(sorted(package.__all__))
    raised = set(errors.__all__) - {"excerpt"}
    assert raised.union(NAMES).difference(package.__all__) == set()


def test_the_names_that_are_imported_on_use_are_those_that_type_checkers_see() -> None:
    package = importlib.import_module(PACKAGE)
    declared = {
        alias.asname or alias.name: (node.module or "", alias.name)
        for node in ast.walk(ast.parse(PUBLIC[PACKAGE].source))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE)
        for alias in node.names
    }
    assert set(package.__all__) <= set(declared)
    for name, (module, original) in declared.items():
        home = importlib.import_module(module)
        assert getattr(package, name) is getattr(home, original), name
    assert set(package.__all__) <= set(dir(package))


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("def f(): ...", "no __all__"),
        ("__all__ = ['f']\ndef f(): ...", "__all__ is not a tuple"),
        ("__all__ = ()\nasync def f(): ...", "not in __all__: f"),
        ("__all__ = ()\nclass C: ...", "not in __all__: C"),
        ("__all__ = ()\nEither: TypeAlias = A | B", "not in __all__: Either"),
        ("__all__ = ()\nif version:\n    def f(): ...", "not in __all__: f"),
        ("__all__ = ()\ntry:\n    pass\nexcept E:\n    def f(): ...", "not in __all__: f"),
        ("__all__ = ('f', 'f')\ndef f(): ...", "twice: f"),
    ],
)
def test_an_incomplete_all_is_found(source: str, fault: str) -> None:
    assert faults(source) == [fault]


@pytest.mark.parametrize(
    "source",
    [
        '"""Nothing here."""',
        "__all__ = ('C', 'f')\nclass C: ...\ndef f(): ...\ndef _g(): ...",
        "__all__ = ()\nT = TypeVar('T')\nLIMIT: Final = 3",
        "from elsewhere import f\n__all__ = ('f',)",
    ],
)
def test_a_complete_all_passes(source: str) -> None:
    assert faults(source) == []
