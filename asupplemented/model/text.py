"""Words of strangers, made fit for an error message."""

from __future__ import annotations

__all__ = ("excerpt",)


def excerpt(value: str | bytes, limit: int = 100) -> str:
    """Quote what a stranger sent, so that it can neither flood nor break a message.

    Args:
        value: Text, or bytes that should be text; invalid UTF-8 is shown as U+FFFD.
        limit: The most characters of `value` to show.

    Returns:
        The `repr` of the beginning, followed by ``...`` if more was cut off.
    """
    head = value[:limit]
    shown = head if isinstance(head, str) else bytes(head).decode("utf-8", "replace")
    return f"{shown!r}..." if len(value) > limit else repr(shown)
