"""Break each rule of the resolver, the lookahead and failover in turn: a test must notice each.

``python -m tests.mutants [WORD ...]`` runs all mutants, or those whose rule contains a word.

A mutant names a function, a piece of it, what takes its place, and the test that must notice. The
piece is matched in the normal form of the function, which `ast.unparse` gives: comments, line
breaks and quotes do not count, and neither does the file. So moving and formatting code costs
nothing, and a rename of an identifier is the same search and replace as in the code.

A mutant is killed if its test fails. It has failed if the test passes, cannot run or is gone, or if
the piece is not in the function exactly once, so that the mutants cannot fall behind the code.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from tests.failover_mutants import FAILOVER
from tests.resolver_mutants import RESOLVER

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
WORKERS = min(4, os.cpu_count() or 1)
HANGS = 60.0
"""Seconds that one test may take beyond all tests without a mutant; then it never ends."""


class Mutant(NamedTuple):
    """One way to break one rule."""

    rule: str
    by: str
    """The test that must notice."""
    target: str
    """A function or constant by its qualified name: ``Resolver._commit``."""
    old: str
    """A piece of one line of its normal form."""
    new: str
    """What takes the place of `old`; "pass" to remove a statement."""


class Verdict(NamedTuple):
    """What became of a mutant."""

    mutant: Mutant
    killed: bool
    reason: str


class UnfitError(Exception):
    """A mutant does not fit the code any more."""


MUTANTS = [Mutant(*each) for each in (*RESOLVER, *FAILOVER)]


# Applying


def find_targets(
    tree: ast.Module | ast.ClassDef, prefix: str = ""
) -> Iterator[tuple[str, ast.stmt]]:
    """The functions and constants of a module, by their qualified names."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield from find_targets(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{prefix}{node.name}", node
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            named = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            yield f"{prefix}{ast.unparse(named)}", node


@cache
def find_files() -> dict[str, list[str]]:
    """Qualified name to the files of the package that define it."""
    files: dict[str, list[str]] = {}
    for path in sorted((ROOT / "asupplemented").rglob("*.py")):
        for name, _ in find_targets(ast.parse(path.read_text("utf-8"))):
            files.setdefault(name, []).append(str(path.relative_to(ROOT)))
    return files


@cache
def find_tests() -> dict[str, str]:
    """Name of a test function to its file."""
    tests: dict[str, str] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name in re.findall(
            r"^(?:async )?def (test_\w+)\(", path.read_text("utf-8"), re.MULTILINE
        ):
            tests.setdefault(name, str(path.relative_to(ROOT)))
    return tests


def normalise(node: ast.stmt) -> str:
    """The normal form of a function or constant, without its docstring."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
        node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(node)


def replace(text: str, old: str, new: str) -> str:
    """Replace a piece that is in a text exactly once; further lines of `new` are indented alike."""
    before, found, after = text.partition(old)
    if not found or old in after:
        message = f"its piece is there {text.count(old)} times in:\n{text}"
        raise UnfitError(message)
    line = before[before.rfind("\n") + 1 :]
    indent = line[: len(line) - len(line.lstrip())]
    return before + new.replace("\n", f"\n{indent}") + after


def mutate(mutant: Mutant, directory: Path) -> tuple[str, str]:
    """The file that a mutant changes in a copy of the project, and its mutated source."""
    files = find_files().get(mutant.target, [])
    if len(files) != 1:
        message = f"{mutant.target} is defined in {len(files)} files: {', '.join(files)}"
        raise UnfitError(message)
    tree = ast.parse((directory / files[0]).read_text("utf-8"))
    [node] = [node for name, node in find_targets(tree) if name == mutant.target]
    mutated = replace(normalise(node), mutant.old, mutant.new)
    try:
        [changed] = ast.parse(mutated).body
    except SyntaxError as error:
        message = f"it is no Python: {error}:\n{mutated}"
        raise UnfitError(message) from error
    for parent in ast.walk(tree):
        if isinstance(parent, ast.Module | ast.ClassDef) and node in parent.body:
            parent.body[parent.body.index(node)] = changed
    return files[0], ast.unparse(tree)


# Judging


def prepare(directory: Path) -> None:
    """Copy what the tests need."""
    ignored = shutil.ignore_patterns("__pycache__", "oracle", "interop")
    for name in ("asupplemented", "tests"):
        shutil.copytree(ROOT / name, directory / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", directory)


def run_tests(directory: Path, *tests: str, limit: float | None) -> tuple[int | None, str]:
    """The exit status of pytest, None after `limit` seconds, and the end of its output."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = {
        **os.environ,
        "HYPOTHESIS_PROFILE": "mutants",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(directory),
    }
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, "it never ends"
    return done.returncode, (done.stdout + done.stderr)[-800:]


def judge(mutant: Mutant, directory: Path, limit: float) -> Verdict:
    """Apply a mutant to a copy of the project, run its test, and put the source back."""
    if (file := find_tests().get(mutant.by)) is None:
        return Verdict(mutant, killed=False, reason=f"{mutant.by} is gone")
    try:
        path, source = mutate(mutant, directory)
    except UnfitError as error:
        return Verdict(mutant, killed=False, reason=str(error))
    before = (directory / path).read_text("utf-8")
    (directory / path).write_text(source, "utf-8")
    try:
        status, said = run_tests(directory, f"{file}::{mutant.by}", limit=limit)
    finally:
        (directory / path).write_text(before, "utf-8")
    if status in {None, 1}:
        return Verdict(mutant, killed=True, reason=mutant.by)
    if status == 0:
        return Verdict(mutant, killed=False, reason=f"it survived {mutant.by}")
    return Verdict(mutant, killed=False, reason=f"its test does not run: {said}")


def show(verdict: Verdict, width: int) -> None:
    """Print one line of the table."""
    word = "killed" if verdict.killed else "FAILED"
    sys.stdout.write(f"{word}  {verdict.mutant.rule:<{width}}  {verdict.reason}\n")
    sys.stdout.flush()


def run(mutants: list[Mutant], home: Path, limit: float) -> list[Verdict]:
    """Judge mutants concurrently, each worker in its own copy of the project."""
    copies: SimpleQueue[Path] = SimpleQueue()
    for number in range(WORKERS):
        prepare(home / str(number))
        copies.put(home / str(number))
    width = max(len(mutant.rule) for mutant in mutants)

    def work(mutant: Mutant) -> Verdict:
        directory = copies.get()
        try:
            return judge(mutant, directory, limit)
        finally:
            copies.put(directory)

    verdicts: list[Verdict] = []
    with ThreadPoolExecutor(WORKERS) as pool:
        for verdict in pool.map(work, mutants):
            show(verdict, width)
            verdicts.append(verdict)
    return verdicts


def main(words: list[str]) -> int:
    """Run the mutants; the exit status is 1 unless every one was killed."""
    started = perf_counter()
    mutants = [m for m in MUTANTS if not words or any(word in m.rule for word in words)]
    if not mutants:
        sys.stderr.write(f"no rule contains {' or '.join(words)}\n")
        return 2
    tests = sorted({find_tests()[m.by] for m in mutants if m.by in find_tests()})
    with TemporaryDirectory(prefix="mutants-") as home:
        prepare(Path(home) / "whole")
        status, said = run_tests(Path(home) / "whole", *tests, limit=None)
        if status != 0:
            sys.stderr.write(f"the tests fail without any mutant: {said}\n")
            return 1
        # Measured on this machine under its present load, so that slowness is no verdict.
        limit = HANGS + perf_counter() - started
        verdicts = run(mutants, Path(home), limit)
    killed = sum(verdict.killed for verdict in verdicts)
    seconds = perf_counter() - started
    failed = len(verdicts) - killed
    sys.stdout.write(f"{killed} passed, {failed} failed in {seconds:.0f}s\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
