"""Imports point down, and each third-party package is imported only by the packages listed here.

The tables below name every unit of the layout: a module, or a package with everything in it. A
module belongs to the unit with the longest name that fits it. A module without a unit fails.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

import pytest

from tests.modules import PACKAGE, ROOT, find_modules

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ARCHITECTURE = ROOT / "docs" / "explanation" / "architecture.md"

LAYERS = {
    unit: layer
    for layer, units in enumerate(
        (
            ("_version", "errors", "limits", "model", "remedies"),
            ("abc", "events"),
            (
                "aio",
                *("supplemented.lookahead", "supplemented.resolution", "supplemented.resolver"),
            ),
            ("blobs", "budget", "credentials", "hostconfig", "oci_layout", "transports"),
            ("cache", "session", "telemetry", "_arguments"),
            ("transfer",),
            ("source",),
            (
                *("transports.directory", "transports.disk", "transports.memory"),
                *("transports.oci", "transports.registry"),
            ),
            ("image",),
            ("supplemented",),
            ("catalog", "testing"),
            ("cli", "serve", "web", "__main__", "_pytest"),
        )
    )
    for unit in units
}
"""Unit -> layer, from the bottom up. A unit may import from its own layer or from a lower one."""

LAYERS = {f"asupplemented.{unit}": layer for unit, layer in LAYERS.items()}
LAYERS["asupplemented"] = max(LAYERS.values())
"""The public names; a module that only this prefix fits has no unit."""

REGISTRY = "asupplemented.transports.registry"

ANYIO_FROM = 2
"""The lowest layer that may import anyio."""

AIOHTTP = frozenset({"aiohttp", "multidict", "yarl"})
"""aiohttp, and the two packages whose types its interface speaks."""

THIRD_PARTY: dict[str, frozenset[str]] = {
    "asupplemented._pytest": frozenset({"pytest", "pytest_asyncio"}),
    "asupplemented.aio": frozenset({"aiofiles"}),
    "asupplemented.cache": frozenset({"obstore", "redis"}),
    "asupplemented.cli": frozenset({"aiofiles", "click", "rich"}),
    "asupplemented.credentials": frozenset({"aiofiles", "msgspec"}),
    "asupplemented.image": frozenset({"msgspec"}),
    "asupplemented.oci_layout": frozenset({"msgspec"}),
    "asupplemented.model": frozenset({"msgspec"}),
    "asupplemented.supplemented.resolution": frozenset({"msgspec"}),
    "asupplemented.serve": AIOHTTP | {"bcrypt", "msgspec", "prometheus_client"},
    "asupplemented.session": frozenset({"aiohttp"}),
    "asupplemented.telemetry": frozenset({"opentelemetry", "prometheus_client"}),
    "asupplemented.testing": AIOHTTP | {"msgspec", "trustme"},
    "asupplemented.transports": frozenset({"msgspec"}),
    "asupplemented.transports.directory": frozenset({"msgspec"}),
    "asupplemented.transports.registry": AIOHTTP | {"msgspec"},
    "asupplemented.hostconfig": frozenset({"aiofiles", "msgspec", "yaml"}),
    "asupplemented.web": AIOHTTP | {"msgspec"},
}

LAZY = frozenset(
    {
        ("asupplemented.cache", "obstore"),  # an extra
        ("asupplemented.cache", "redis"),  # an extra
        ("asupplemented.serve", "bcrypt"),  # an extra
        ("asupplemented.session", "aiohttp"),  # `import asupplemented` imports session
        ("asupplemented.telemetry", "opentelemetry"),  # an extra
        ("asupplemented.telemetry", "prometheus_client"),  # an extra
        ("asupplemented.testing", "trustme"),  # few tests need TLS
        ("asupplemented.hostconfig", "yaml"),  # an extra
    }
)
"""What a unit imports inside functions only."""


@dataclass(frozen=True)
class Import:
    """One import statement."""

    importer: str
    target: str
    line: int
    lazy: bool
    """It does not run when the module is imported: it is in a function, or for types only."""

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.target}"


class ImportFinder(ast.NodeVisitor):
    """Collects every import of a module, those in functions and for type checkers included."""

    def __init__(self, importer: str, *, is_package: bool, known: Iterable[str]) -> None:
        self.importer = importer
        self.parents = [*importer.split("."), *([""] if is_package else [])]
        self.known = frozenset(known)
        self.lazy = False
        self.found: list[Import] = []

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.add(alias.name, node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            base = ".".join(filter(None, [*self.parents[: -node.level], base]))
        for alias in node.names:
            module = f"{base}.{alias.name}"
            self.add(module if module in self.known else base, node.lineno)

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            self.visit_lazily(node.body)
            for child in node.orelse:
                self.visit(child)
        else:
            self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.visit_lazily(node.body)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_lazily(node.body)

    def visit_lazily(self, nodes: list[ast.stmt]) -> None:
        before, self.lazy = self.lazy, True
        for node in nodes:
            self.visit(node)
        self.lazy = before

    def add(self, target: str, line: int) -> None:
        self.found.append(Import(self.importer, target, line, self.lazy))


def find_imports(
    importer: str, source: str, *, is_package: bool = False, known: Iterable[str] = LAYERS
) -> list[Import]:
    finder = ImportFinder(importer, is_package=is_package, known=known)
    finder.visit(ast.parse(source))
    return finder.found


def unit_of(module: str) -> str | None:
    """The longest unit that fits a module; the package itself holds `__init__` only."""
    if module == PACKAGE:
        return PACKAGE
    fits = (unit for unit in LAYERS if unit != PACKAGE and f"{module}.".startswith(f"{unit}."))
    return max(fits, key=len, default=None)


def upward(found: Import) -> str | None:
    """What is wrong with an import within the package, None if nothing is."""
    source, target = unit_of(found.importer), unit_of(found.target)
    if target is None or source is None:
        return f"{found}: no such unit"
    if LAYERS[target] > LAYERS[source]:
        return f"{found}: up from layer {LAYERS[source]} to {LAYERS[target]}"
    return None


def misplaced(found: Import) -> str | None:
    """What is wrong with the import of a third-party package, None if nothing is."""
    unit, package = unit_of(found.importer), found.target.partition(".")[0]
    if unit is None:
        return f"{found}: no such unit"
    if package == "anyio" and LAYERS[unit] >= ANYIO_FROM:
        return None
    if package not in THIRD_PARTY.get(unit, frozenset()):
        return f"{found}: not in {unit}"
    if (unit, package) in LAZY and not found.lazy:
        return f"{found}: inside functions only"
    return None


def is_ours(found: Import) -> bool:
    return found.target.partition(".")[0] == PACKAGE


def is_standard(found: Import) -> bool:
    return found.target.partition(".")[0] in sys.stdlib_module_names


def faults(imports: Iterable[Import]) -> list[str]:
    """What is wrong with imports, those of the standard library aside."""
    return [
        fault
        for found in imports
        if not is_standard(found)
        and (fault := upward(found) if is_ours(found) else misplaced(found))
    ]


def layers_of_registry() -> dict[str, int]:
    """Module -> layer, from the table in the docstring of ``transports.registry``."""
    docstring = ast.get_docstring(ast.parse(MODULES[REGISTRY].source)) or ""
    rows = re.findall(r"^    \w+: (.+)$", docstring, re.MULTILINE)
    return {
        f"{REGISTRY}.{module}": layer
        for layer, modules in enumerate(rows)
        for module in modules.split(", ")
    }


def module_graph(imports: Iterable[Import]) -> dict[str, set[str]]:
    """Which modules a module imports, those of functions and for types included.

    The contracts of ``abc`` name one another, for types only.
    """
    graph: defaultdict[str, set[str]] = defaultdict(set)
    for found in imports:
        within_abc = unit_of(found.importer) == unit_of(found.target) == f"{PACKAGE}.abc"
        if found.target in MODULES and not (within_abc and found.lazy):
            graph[found.importer].add(found.target)
    return graph


def unit_graph(imports: Iterable[Import]) -> dict[str, set[str]]:
    """Unit -> the other units that it imports."""
    graph: defaultdict[str, set[str]] = defaultdict(set)
    for found in filter(is_ours, imports):
        source, target = unit_of(found.importer), unit_of(found.target)
        if source is not None and target is not None and source != target:
            graph[source].add(target)
    return graph


MODULES = find_modules()


def imports_of_package() -> Iterator[Import]:
    for module in MODULES.values():
        yield from find_imports(
            module.name, module.source, is_package=module.is_package, known=MODULES
        )


def test_every_module_has_a_layer() -> None:
    without = [name for name in MODULES if unit_of(name) is None]
    assert without == [], "add them to LAYERS, at the layers that the design gives them"


def test_imports_point_down_and_third_parties_stay_in_their_packages() -> None:
    assert faults(imports_of_package()) == []


def test_the_table_of_layers_in_the_docs_is_true() -> None:
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", ARCHITECTURE.read_text("utf-8"), re.MULTILINE)
    drawn = {(int(layer), unit) for layer, units in rows for unit in re.findall("`(.+?)`", units)}
    found = {unit for unit in map(unit_of, MODULES) if unit is not None}
    built = {(LAYERS[unit], unit.removeprefix(f"{PACKAGE}.")) for unit in found}
    planned = {(layer, unit.removeprefix(f"{PACKAGE}.")) for unit, layer in LAYERS.items()}
    assert built - drawn == set(), "what docs/explanation/architecture.md does not show"
    assert drawn - planned == set(), (
        "what docs/explanation/architecture.md shows elsewhere than LAYERS"
    )


def test_packages_do_not_import_in_a_circle() -> None:
    order = TopologicalSorter(unit_graph(imports_of_package())).static_order()
    assert set(order) <= set(LAYERS)


def test_modules_do_not_import_in_a_circle() -> None:
    TopologicalSorter(module_graph(imports_of_package())).prepare()


def test_modules_of_the_registry_keep_to_their_layers() -> None:
    layers = layers_of_registry()
    modules = {name for name in MODULES if name.startswith(f"{REGISTRY}.")}
    assert set(layers) == modules, "the table in the docstring of the package is out of date"
    inner = [each for each in imports_of_package() if {each.importer, each.target} <= modules]
    assert [str(each) for each in inner if layers[each.target] > layers[each.importer]] == []


@pytest.mark.parametrize(
    ("importer", "source", "fault"),
    [
        ("asupplemented.model.digest", "import asupplemented.abc", "up from layer"),
        (
            "asupplemented.supplemented.resolver",
            "from asupplemented import session",
            "up from layer",
        ),
        ("asupplemented.supplemented.resolver", "from .. import blobs", "up from layer"),
        ("asupplemented.session", "from .web import app", "up from layer"),
        ("asupplemented.catalog", "from asupplemented import Session", "up from layer"),
        (
            "asupplemented.abc",
            "if TYPE_CHECKING:\n    from asupplemented.source import VerifiedSource",
            "up from layer",
        ),
        (
            "asupplemented.aio.retry",
            "def f():\n    import asupplemented.cli",
            "up from layer",
        ),
        ("asupplemented.image", "import asupplemented.cellar", "no such unit"),
        ("asupplemented.model.digest", "import anyio", "not in asupplemented.model"),
        (
            "asupplemented.supplemented.resolver",
            "import msgspec.json",
            "not in asupplemented.supplemented.resolver",
        ),
        ("asupplemented.transports.oci", "import aiohttp", "not in asupplemented.transports"),
        ("asupplemented.session", "import aiohttp", "inside functions only"),
        (
            "asupplemented.hostconfig.registries_conf",
            "import aiohttp",
            "not in asupplemented.hostconfig",
        ),
        ("asupplemented.session", "class C:\n    from aiohttp import web", "inside functions only"),
        ("asupplemented.catalog", "try:\n    import redis\nexcept E:\n    pass", "not in"),
    ],
)
def test_a_wrong_import_is_found(importer: str, source: str, fault: str) -> None:
    [found] = faults(find_imports(importer, source))
    assert fault in found


@pytest.mark.parametrize(
    ("importer", "source"),
    [
        ("asupplemented.model.digest", "import hashlib\nfrom asupplemented import errors"),
        ("asupplemented.model.manifest", "from .digest import Digest\nimport msgspec"),
        ("asupplemented.blobs.stream", "import anyio.to_thread\nfrom ..aio import retry"),
        ("asupplemented.session", "async def f():\n    import aiohttp"),
        ("asupplemented.session", "if TYPE_CHECKING:\n    from aiohttp import ClientSession"),
        ("asupplemented.transports.registry.client", "import aiohttp\nimport yarl"),
        ("asupplemented", "def __getattr__(name):\n    from asupplemented import web"),
        ("asupplemented.cli.main", "import asupplemented as asup\nimport rich.tree"),
    ],
)
def test_a_right_import_passes(importer: str, source: str) -> None:
    assert faults(find_imports(importer, source)) == []


def test_a_relative_import_starts_at_the_package_of_its_module() -> None:
    in_package = find_imports("asupplemented.cache", "from .spool import S", is_package=True)
    in_module = find_imports("asupplemented.cache.spool", "from .. import blobs")
    assert [found.target for found in in_package] == ["asupplemented.cache.spool"]
    assert [found.target for found in in_module] == ["asupplemented.blobs"]


def test_a_circle_of_modules_is_found() -> None:
    source = "asupplemented.source"
    circle = [
        *find_imports("asupplemented.image", f"def f():\n    import {source}", known=MODULES),
        *find_imports(source, "from asupplemented.image import Image", known=MODULES),
    ]
    with pytest.raises(CycleError):
        TopologicalSorter(module_graph(circle)).prepare()


def test_a_circle_of_packages_is_found() -> None:
    circle = [
        *find_imports("asupplemented.session", "from asupplemented.aio import files"),
        *find_imports("asupplemented.aio.files", "from asupplemented import cache"),
        *find_imports("asupplemented.cache.spool", "def f():\n    import asupplemented.session"),
    ]
    with pytest.raises(CycleError):
        TopologicalSorter(unit_graph(circle)).prepare()
