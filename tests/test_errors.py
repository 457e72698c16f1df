"""Excerpts of what strangers sent."""

from __future__ import annotations

import pytest

from asupplemented.errors import excerpt


@pytest.mark.parametrize(
    ("value", "limit", "shown"),
    [
        ("short", 100, "'short'"),
        ("a" * 5, 5, "'aaaaa'"),
        ("a" * 6, 5, "'aaaaa'..."),
        ("line\nbreak\x1b", 100, "'line\\nbreak\\x1b'"),
        (b"bytes", 100, "'bytes'"),
        (b"\xff\xfe", 100, "'\ufffd\ufffd'"),
        (b"abc", 2, "'ab'..."),
        ("", 10, "''"),
    ],
)
def test_an_excerpt_is_quoted_and_cut(value: str | bytes, limit: int, shown: str) -> None:
    assert excerpt(value, limit) == shown
