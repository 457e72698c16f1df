"""Excerpts of what strangers sent, and what a registry answers on each error."""

from __future__ import annotations

import pytest

from asupplemented import errors
from asupplemented.errors import SupplementedError, excerpt


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


CLASSES = [
    found
    for name in errors.__all__
    if isinstance(found := getattr(errors, name), type) and issubclass(found, SupplementedError)
]
CODES = {
    *("BLOB_UNKNOWN", "DIGEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN"),
    *("RANGE_INVALID", "TOOMANYREQUESTS", "UNAVAILABLE", "UNKNOWN", "UNSUPPORTED"),
}


def test_SRV11_every_class_says_how_a_registry_answers() -> None:
    assert set(errors._HTTP_ANSWERS) == set(CLASSES)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_SRV11_the_answer_tells_no_secret(kind: type[SupplementedError]) -> None:
    error = kind("https://ann:secret@host/v2", reference="docker://secret/app", digest="secret")
    ((told),) = error.oci_error()["errors"]
    assert set(told) == {"code", "message", "detail"}
    assert told["code"] in CODES
    assert "secret" not in repr(told)
    assert 400 <= error.http_status < 600
    assert error.http_status not in {401, 403}, "our own challenge, or none (SRV-10)"


@pytest.mark.parametrize(
    ("attempts", "status"),
    [
        ((), 502),
        ((errors.TooManyRequestsError(), errors.TooManyRequestsError()), 429),
        ((errors.SourceTimeoutError(), errors.SourceTimeoutError()), 504),
        ((errors.TooManyRequestsError(), errors.SourceTimeoutError()), 502),
        ((errors.BlobNotFoundError(), errors.NetworkError()), 502),
        ((errors.FailoverError(attempts=(errors.SourceTimeoutError(),)),), 504),
        ((errors.FailoverError(attempts=(errors.SlotTimeoutError(),) * 2),), 503),
    ],
)
def test_SRV11_several_failures_answer_as_one_if_they_are_alike(
    attempts: tuple[SupplementedError, ...], status: int
) -> None:
    assert errors.FailoverError(attempts=attempts).http_status == status


def test_SRV11_a_class_of_a_user_answers_as_its_base() -> None:
    class MineError(errors.BlobNotFoundError):
        pass

    assert (MineError().http_status, MineError().oci_error()["errors"][0]["code"]) == (
        404,
        "BLOB_UNKNOWN",
    )
