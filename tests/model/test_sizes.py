"""Sizes in words."""

from __future__ import annotations

import pytest

from asupplemented.errors import ConfigurationError
from asupplemented.model.sizes import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("500MB", 500_000_000),
        ("500M", 500 * 1024**2),
        ("10GiB", 10 * 1024**3),
        ("10g", 10 * 1024**3),
        (" 2TiB ", 2 * 1024**4),
        ("1kb", 1000),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "0", "0GiB", "-1", "1.5GiB", "GiB", "1PiB", "1e9", "१", "1 G"]
)
def test_no_sizes(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_size(text)
