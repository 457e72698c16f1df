"""Every rule that is cited is stated, and proven by a test that names it, or it is said why not."""

from __future__ import annotations

import pytest

from tests.rules import UNTESTED, find_citations, find_ids, find_tests, group, read_rules

RULES = read_rules()


def test_every_rule_has_a_test_or_a_reason() -> None:
    tests = group(find_tests())
    assert {rule for rule in RULES if not tests.get(rule)} == set(UNTESTED)


def test_every_rule_that_is_cited_is_stated() -> None:
    assert [(cited, where) for cited, where in find_citations() if cited not in RULES] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("as rule RES-06 says", {"RES-06"}),
        ("(rules RES-06,\n    CONF-14 and X-05b)", {"RES-06", "CONF-14", "X-05b"}),
        ('id="REF-02 newline"', {"REF-02"}),
        ("an unknown prefix: ZZ-01", {"ZZ-01"}),
        ("rules G1 to G5", {"G1", "G5"}),
        ("Rule X7; (rule\n    # SRV_3)", {"X7", "SRV_3"}),
        ("test_RES06_CONF_14_what_is_sent", {"RES-06", "CONF-14"}),
        ("test_X7_x test_ZZ01_x", {"X-7", "ZZ-01"}),
        ("UTF-16, P-256, sha-01, a-BC-01, REF-021, test_IPv6, rule of G5", set()),
    ],
)
def test_citations_are_found(text: str, expected: set[str]) -> None:
    assert find_ids(text) == expected


def test_the_page_lists_rules_in_order() -> None:
    assert len(RULES) > 150
    ids: dict[str, list[str]] = {}
    for rule in RULES:
        ids.setdefault(rule.partition("-")[0], []).append(rule)
    assert {prefix: found for prefix, found in ids.items() if found != sorted(found)} == {}
