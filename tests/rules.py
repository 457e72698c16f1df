"""The stated rules, and the tests that prove them: ``python -m tests.rules [WORD...]``.

A rule has an id such as RES-06. Text cites it in this form. A test proves a rule by naming it: at
the start of its name, without the hyphen (``test_RES06_...``, ``test_CONF_14_...``), or in the id
of one of its cases (``id="REF-02 newline"``).
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = ROOT / "docs" / "reference" / "rules.md"

UNTESTED: Final = {
    "REDIR-01": "it tells what others do",
    "RET-01": "it tells what others do",
    "RET-02": "it tells what others do",
    "RET-03": "it tells what others do",
    "RET-04": "it tells what others do",
    "RET-05": "it tells what others do",
    "TLS-10": "there is nothing to see of what is not spoken",
}
"""Rules that no test names, and why."""

NO_RULES: Final = frozenset(("UTF-16", "UTF-32"))
"""Terms that look like the id of a rule."""

_CITED: Final = re.compile(r"(?<![A-Za-z0-9_.%/-])[A-Z]{1,5}-[0-9]{2}[a-z]?(?![A-Za-z0-9_-])")
"""The id of a rule, wherever it stands in text."""

_LOOSE: Final = re.compile(
    r"\b[Rr]ules?[\s#]+((?:(?:and|to|or|,|[A-Z]{1,5}[-_]?[0-9]+[a-z]?)[\s#]*)+)", re.ASCII
)
"""What follows the word "rule", be it the id of one or an attempt at it."""

_ATTEMPT: Final = re.compile(r"[A-Z]{1,5}[-_]?[0-9]+[a-z]?")

_TEST_NAME: Final = re.compile(r"\btest_((?:[A-Z]{1,5}_?[0-9]+[a-z]?_)+)")
_NAMED: Final = re.compile(r"([A-Z]{1,5})_?([0-9]+[a-z]?)_")
_LINE: Final = re.compile(r"^- \*\*([A-Z]{1,5}-[0-9]{2}[a-z]?)\*\* (\S.*)$", re.MULTILINE)


def read_rules() -> dict[str, str]:
    """Every rule by its id, in order."""
    return dict(_LINE.findall(PAGE.read_text(encoding="utf-8")))


def find_ids(text: str) -> set[str]:
    """What a text cites as rules, in whatever form: ids, and names of tests."""
    found = set(_CITED.findall(text)) - NO_RULES
    for follows in _LOOSE.findall(text):
        found.update(_ATTEMPT.findall(follows))
    for names in _TEST_NAME.findall(text):
        found.update(f"{prefix}-{number}" for prefix, number in _NAMED.findall(names))
    return found


def find_citations() -> Iterator[tuple[str, str]]:
    """Every id that the package, its documentation or its tests cite, each with the file."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    folders = ("asupplemented", "benchmarks", "docs", "tests")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    for path in sorted([*pages, *sources]):
        if path.name != "test_rules.py":  # it shows ids that are none
            for cited in sorted(find_ids(path.read_text(encoding="utf-8"))):
                yield cited, str(path.relative_to(ROOT))


def find_tests() -> Iterator[tuple[str, str]]:
    """Every test function by its place, with all that may name a rule: its name and its cases."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if node.name.startswith("test_"):
                place = f"{path.relative_to(ROOT)}::{node.name}"
                yield place, " ".join([node.name, *_strings(node.decorator_list)])


def _strings(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        for each in ast.walk(node):
            if isinstance(each, ast.Constant) and isinstance(each.value, str):
                yield each.value


def group(tests: Iterable[tuple[str, str]]) -> Mapping[str, list[str]]:
    """The places of tests by the ids in their texts, unknown ids included."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for place, text in tests:
        for rule in find_ids(text):
            if place not in found[rule]:
                found[rule].append(place)
    return found


def collect() -> list[tuple[str, str]]:
    """What pytest would run, each test function once for each rule that a case of it names."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if "::" in line]
    return [(line.partition("[")[0], line.rpartition("::")[2]) for line in lines]


def main(words: list[str]) -> int:
    """Print each rule, or those whose id holds one of the words, with its tests."""
    rules = read_rules()
    tests = group(collect())
    for rule, title in rules.items():
        if words and not any(word.upper() in rule for word in words):
            continue
        reason = UNTESTED.get(rule)
        sys.stdout.write(f"{rule}  {title}\n")
        lines = [reason] if reason is not None else tests.get(rule, ["no test"])
        sys.stdout.writelines(f"    {line}\n" for line in lines)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
