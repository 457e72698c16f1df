"""The bounded memory: what it keeps, and what it evicts first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asupplemented.aio.lru import LRU


def test_the_least_recently_used_entry_is_evicted_first() -> None:
    memory = LRU[str, int](2)
    memory.put("a", 1)
    memory.put("b", 2)
    assert memory.get("a") == 1
    assert memory.put("c", 3) == ["b"]
    assert memory.values() == [1, 3]
    assert memory.get("b") is None


def test_asking_whether_a_key_is_there_does_not_count_as_use() -> None:
    memory = LRU[str, int](2)
    memory.put("a", 1)
    memory.put("b", 2)
    assert "a" in memory
    memory.put("c", 3)
    assert "a" not in memory


def test_a_key_is_there_even_if_its_value_is_none() -> None:
    memory = LRU[str, None](2)
    memory.put("a", None)
    assert "a" in memory
    assert memory.pop("a") is None
    assert "a" not in memory


def test_a_new_value_takes_the_weight_of_the_old_one_away() -> None:
    memory = LRU[str, str](4, len)
    memory.put("a", "xxx")
    memory.put("a", "y")
    memory.put("b", "zzz")
    assert memory.values() == ["y", "zzz"]
    assert repr(memory) == "<LRU of 2 entries, 4 of 4>"


def test_what_is_heavier_than_the_limit_is_not_kept() -> None:
    memory = LRU[str, str](2, len)
    assert memory.put("a", "xxx") == ["a"]
    assert memory.get("a") is None
    assert repr(memory) == "<LRU of 0 entries, 0 of 2>"


def test_clearing_forgets_weights_too() -> None:
    memory = LRU[str, str](2, len)
    memory.put("a", "xx")
    memory.clear()
    memory.put("b", "xx")
    assert memory.values() == ["xx"]


@given(
    st.lists(st.tuples(st.sampled_from(["put", "get", "pop"]), st.integers(0, 5))),
    st.integers(1, 4),
)
def test_it_agrees_with_a_list_that_is_kept_in_order_of_use(
    steps: list[tuple[str, int]], limit: int
) -> None:
    memory, used = LRU[int, int](limit), list[int]()
    for action, key in steps:
        known = key in used
        if known:
            used.remove(key)
        if action == "put":
            memory.put(key, key)
            used.append(key)
            del used[:-limit]
        elif action == "get":
            assert memory.get(key) == (key if known else None)
            used += [key] * known
        else:
            assert memory.pop(key) == (key if known else None)
        assert memory.values() == used
