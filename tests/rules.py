"""The rules of docs/rules.md, and the tests that prove them: ``python -m tests.rules [WORD...]``.

A test proves a rule by naming it: in its name (``test_RES06_...``, ``test_CONF_14_...``), or in
the id of one of its cases (``id="REF-02 newline"``).
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
PAGE: Final = ROOT / "docs" / "rules.md"

UNTESTED: Final = {
    "REDIR-01": "it tells what others do",
    "RET-01": "it tells what others do",
    "RET-02": "it tells what others do",
    "RET-03": "it tells what others do",
    "RET-04": "it tells what others do",
    "RET-05": "it tells what others do",
    "TLS-10": "there is nothing to see of what is not spoken",
    # Remove when there is a server.
    "SEC-17": "there is no server yet",
}
"""Rules that no test names, and why."""


def read_rules() -> dict[str, str]:
    """Every rule by its id, in order."""
    text = PAGE.read_text(encoding="utf-8")
    return dict(re.findall(r"^- \*\*([A-Z]+-\d\d)\*\* (\S.*)$", text, re.MULTILINE))


class Finder:
    """Finds ids of rules in text.

    Args:
        rules: The ids; what only has the prefix of one of them is found as well.
    """

    def __init__(self, rules: Iterable[str]) -> None:
        prefixes = "|".join(sorted({rule.partition("-")[0] for rule in rules}))
        self._id = re.compile(rf"(?<![A-Za-z0-9])({prefixes})[-_]?(\d\d)(?!\d)")

    def find(self, text: str) -> set[str]:
        """The rules that a text names."""
        return {f"{prefix}-{number}" for prefix, number in self._id.findall(text)}


def find_tests() -> Iterator[tuple[str, str]]:
    """Every test function by its place, with all that may name a rule: its name and its cases."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
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


def group(rules: Iterable[str], tests: Iterable[tuple[str, str]]) -> Mapping[str, list[str]]:
    """The places of tests by the rules that their texts name; unknown ids are kept too."""
    finder = Finder(rules)
    found: defaultdict[str, list[str]] = defaultdict(list)
    for place, text in tests:
        for rule in finder.find(text):
            if place not in found[rule]:
                found[rule].append(place)
    return found


def collect() -> list[tuple[str, str]]:
    """What pytest would run, each test function once for each rule that a case of it names."""
    ours = "--ignore=tests/test_rules.py"  # its cases are the rules
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", ours, "tests"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if "::" in line]
    return [(line.partition("[")[0], line.rpartition("::")[2]) for line in lines]


def main(words: list[str]) -> int:
    """Print each rule, or those whose id holds one of the words, with its tests."""
    rules = read_rules()
    tests = group(rules, collect())
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
