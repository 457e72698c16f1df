"""Every rule is proven by a test that names it, or it is said why not."""

from __future__ import annotations

import pytest

from tests.rules import UNTESTED, Finder, find_tests, group, read_rules

RULES = read_rules()
TESTS = group(RULES, find_tests())


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule not in UNTESTED])
def test_a_rule_has_a_test(rule: str) -> None:
    assert TESTS.get(rule), f"no test names {rule}: {RULES[rule]}"


@pytest.mark.parametrize("rule", UNTESTED)
def test_what_is_said_to_have_no_test_has_none(rule: str) -> None:
    assert rule in RULES
    assert TESTS.get(rule, []) == []


def test_no_test_names_a_rule_that_does_not_exist() -> None:
    assert set(TESTS).difference(RULES) == set()


def test_rules_are_found_in_names_and_in_cases() -> None:
    finder = Finder(["RES-06", "CONF-14", "REF-02"])
    assert finder.find("test_RES06_REF_02_what_is_sent") == {"RES-06", "REF-02"}
    assert finder.find("test_CONF_14_x REF-02 newline") == {"CONF-14", "REF-02"}
    assert finder.find("test_REF99_unknown") == {"REF-99"}
    assert finder.find("test_XREF02 REF-021 ref-02 REF02x test_IPv6") == {"REF-02"}


def test_the_page_lists_rules_in_order() -> None:
    assert len(RULES) > 150
    numbers: dict[str, list[int]] = {}
    for rule in RULES:
        prefix, _, number = rule.partition("-")
        numbers.setdefault(prefix, []).append(int(number))
    for prefix, found in numbers.items():
        assert found == list(range(1, len(found) + 1)), prefix
