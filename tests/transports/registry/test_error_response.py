"""What answers mean."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from asupplemented.errors import (
    BlobNotFoundError,
    ForbiddenError,
    MalformedResponseError,
    ManifestNotFoundError,
    NotFoundError,
    RegistryError,
    ServerError,
    TooManyRequestsError,
    UnauthorizedError,
    UnexpectedStatusError,
)
from asupplemented.transports.registry.error_response import (
    ErrorResponse,
    HostileDocumentError,
    Target,
    decode_document,
    describe,
    parse_media_type,
    parse_warning,
)
from asupplemented.transports.registry.redaction import Secrets

NOW = 1_700_000_000.0
URL = "https://registry.example/v2/a/manifests/latest"
MANIFEST = Target("manifest latest", ManifestNotFoundError)
PING = Target("its version")


def errors(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"errors": entries}).encode()


def error_of(
    status: int,
    body: bytes | None = b"",
    *headers: tuple[str, str],
    target: Target = MANIFEST,
    secrets: tuple[str, ...] = (),
) -> RegistryError | NotFoundError:
    answer = ErrorResponse(status, CIMultiDictProxy(CIMultiDict(headers)), body, URL)
    return describe(answer, target, now=NOW, secrets=Secrets(secrets))


def registry_error(
    status: int, body: bytes | None = b"", *headers: tuple[str, str]
) -> RegistryError:
    error = error_of(status, body, *headers)
    assert isinstance(error, RegistryError)
    return error


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, UnauthorizedError),
        (403, ForbiddenError),
        (429, TooManyRequestsError),
        (500, ServerError),
        (503, ServerError),
        (599, ServerError),
        (400, UnexpectedStatusError),
        (405, UnexpectedStatusError),
        (408, UnexpectedStatusError),
        (204, UnexpectedStatusError),
        (304, UnexpectedStatusError),
        (101, UnexpectedStatusError),
    ],
)
def test_ERR08_the_status_decides(status: int, kind: type[RegistryError]) -> None:
    error = registry_error(status)
    assert type(error) is kind
    assert error.status == status
    assert error.url == URL
    assert f"answered {status} for manifest latest" in str(error)


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        ("invalid_token", UnauthorizedError, "UNAUTHORIZED"),
        ("insufficient_scope", ForbiddenError, "DENIED"),
    ],
)
def test_ERR01_a_challenge_comes_before_the_body(
    error: str, kind: type[RegistryError], code: str
) -> None:
    body = errors({"code": "UNKNOWN", "message": "of the body"})
    header = f'Bearer realm="https://a",error="{error}",error_description="of the challenge"'
    found = registry_error(401, body, ("WWW-Authenticate", header))
    assert type(found) is kind
    assert found.code == code
    assert "of the challenge" in str(found)
    assert found.errors == (("UNKNOWN", "of the body"),)


def test_ERR01_a_challenge_without_a_description() -> None:
    header = ("WWW-Authenticate", 'Bearer realm="x",error="invalid_token"')
    assert "authentication required" in str(registry_error(401, b"", header))


def test_ERR01_the_first_challenge_with_an_error_counts() -> None:
    headers = (
        ("WWW-Authenticate", 'Basic realm="x",error="invalid_token"'),
        ("WWW-Authenticate", 'Bearer realm="x",error="invalid_request"'),
        ("WWW-Authenticate", 'Bearer realm="x",error="insufficient_scope"'),
    )
    assert type(registry_error(401, b"", *headers)) is ForbiddenError


def test_ERR01_on_403_only_the_body_counts() -> None:
    header = ("WWW-Authenticate", 'Bearer realm="x",error="invalid_token"')
    error = registry_error(403, errors({"code": "DENIED", "message": "no"}), header)
    assert type(error) is ForbiddenError
    assert (error.code, error.errors) == ("DENIED", (("DENIED", "no"),))


@pytest.mark.parametrize(
    ("status", "code"), [(401, "UNAUTHORIZED"), (429, "TOOMANYREQUESTS"), (400, "UNKNOWN")]
)
def test_ERR02_the_legacy_form(status: int, code: str) -> None:
    error = registry_error(status, b'{"details": "incorrect username"}')
    assert error.code == code
    assert "incorrect username" in str(error)


def test_ERR03_the_first_error_is_the_primary_one() -> None:
    body = errors(
        {"code": "NAME_INVALID", "message": "first", "detail": {"x": 1}},
        {"code": "TAG_INVALID", "message": "second"},
    )
    error = registry_error(400, body)
    assert error.code == "NAME_INVALID"
    assert "first" in str(error)
    assert "second" not in str(error)
    assert error.errors == (("NAME_INVALID", "first"), ("TAG_INVALID", "second"))


@pytest.mark.parametrize(
    "code", ["NOT_FOUND", "404", "denied", "Denied", 404, None, {}, ["DENIED"]]
)
def test_ERR03_an_unknown_code_becomes_unknown_and_keeps_its_message(code: object) -> None:
    error = registry_error(400, errors({"code": code, "message": "why"}))
    assert type(error) is UnexpectedStatusError
    assert error.errors == (("UNKNOWN", "why"),)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("DENIED", ForbiddenError),
        ("UNAUTHORIZED", UnauthorizedError),
        ("TOOMANYREQUESTS", TooManyRequestsError),
    ],
)
def test_ERR08_the_code_decides_where_the_status_does_not(
    code: str, kind: type[RegistryError]
) -> None:
    assert type(registry_error(400, errors({"code": code}))) is kind


def test_ERR08_401_with_denied_is_denied() -> None:
    assert type(registry_error(401, errors({"code": "DENIED"}))) is ForbiddenError


@pytest.mark.parametrize(
    "body",
    [
        b'{"errors": []}',
        b"{}",
        b'{"errors": "no"}',
        b'{"errors": [1, "x"]}',
        b"[]",
        b"no JSON at all, but a sentence that is longer than fifty characters",
        "täxt".encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b"NaN",
        b"\xff\xfe",
    ],
)
def test_ERR04_what_is_no_error_document_is_quoted(body: bytes) -> None:
    error = registry_error(400, body)
    assert type(error) is UnexpectedStatusError
    assert error.status == 400
    assert repr(body[:40].decode("utf-8", "replace"))[1:-1][:30] in str(error)
    if len(body) > 50:
        assert str(error).endswith("...")
    assert type(registry_error(401, body)) is UnauthorizedError


def test_ERR05_the_body_of_other_statuses_is_not_looked_at() -> None:
    error = registry_error(500, errors({"code": "DENIED", "message": "sentinel"}))
    assert type(error) is ServerError
    assert (error.code, error.errors) == ("", ())
    assert "sentinel" not in str(error)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b""),
        (404, b"<html>not here</html>"),
        (404, None),
        (404, b"[" * 60_000),
        (404, errors({"code": "NAME_UNKNOWN"})),
        (404, errors({"code": "UNKNOWN", "message": "Not Found"})),
        (404, errors({"code": "DENIED"})),
        (400, errors({"code": "MANIFEST_UNKNOWN"})),
    ],
)
def test_ERR06_absent(status: int, body: bytes | None) -> None:
    error = error_of(status, body)
    assert type(error) is ManifestNotFoundError
    assert "holds no manifest latest" in str(error)


@pytest.mark.parametrize("status", [401, 403, 429, 500])
def test_ERR07_what_is_forbidden_is_not_absent(status: int) -> None:
    error = error_of(status, errors({"code": "MANIFEST_UNKNOWN"}))
    assert not isinstance(error, NotFoundError)


def test_ERR06_a_missing_blob_has_its_own_error() -> None:
    target = Target("blob x", BlobNotFoundError, "sha256:x")
    error = error_of(404, target=target)
    assert type(error) is BlobNotFoundError
    assert error.digest == "sha256:x"


def test_PING01_a_ping_that_is_not_found_is_no_miss() -> None:
    assert type(error_of(404, target=PING)) is UnexpectedStatusError


@pytest.mark.parametrize(
    "body",
    [None, b"[" * 60_000, b'{"a":' * 10_000, b'{"errors": ' + b"9" * 5000 + b"}"],
    ids=["over the cap", "deep lists", "deep objects", "a huge number"],
)
def test_ERR09_a_hostile_body_makes_the_answer_malformed(body: bytes | None) -> None:
    error = registry_error(400, body)
    assert type(error) is MalformedResponseError
    assert error.status == 400
    assert "was not read" in error.__notes__[0]
    # Where the status has a meaning of its own, it keeps it.
    assert type(registry_error(401, body)) is UnauthorizedError
    assert type(registry_error(429, body)) is TooManyRequestsError


def test_RET06_retry_after_is_kept() -> None:
    assert registry_error(429, b"", ("Retry-After", "300")).retry_after == 300.0
    assert registry_error(503, b"", ("Retry-After", "soon"), ("Retry-After", "2")).retry_after == 2
    assert registry_error(429).retry_after is None


def test_CRED07_our_secrets_are_taken_out_of_what_is_repeated_to_us() -> None:
    secrets = ("sentinel-one", "sentinel-one-and-more", "")
    said = "you said sentinel-one-and-more and sentinel-one"
    for body in (errors({"code": "UNKNOWN", "message": said}), said.encode()):
        error = error_of(400, body, secrets=secrets)
        assert isinstance(error, RegistryError)
        assert "sentinel" not in f"{error!s} {error!r} {error.errors}"
        assert "you said ***" in str(error)
    challenge = ("WWW-Authenticate", f'Bearer error="invalid_token",error_description="{said}"')
    assert "sentinel" not in str(error_of(401, b"", challenge, secrets=secrets))


def test_a_secret_at_the_edge_of_an_excerpt_does_not_peep_out() -> None:
    body = b"x" * 45 + b"sentinel-secret"
    assert "sent" not in str(error_of(400, body, secrets=("sentinel-secret",)))


def test_what_strangers_say_cannot_flood_or_break_a_message() -> None:
    message = "\x1b[31m\n" + "x" * 10_000
    error = registry_error(400, errors(*[{"code": "UNKNOWN", "message": message}] * 1000))
    assert len(str(error)) < 500
    assert "\x1b" not in str(error)
    assert "\n" not in str(error)
    assert len(error.errors) <= 16
    assert all(len(text) <= 200 for _, text in error.errors)


@given(st.integers(100, 999), st.binary(max_size=200), st.text(max_size=30))
def test_ERR_nothing_breaks_the_reader(status: int, body: bytes, header: str) -> None:
    error = error_of(status, body, ("WWW-Authenticate", header), ("Retry-After", header))
    assert str(error)


@pytest.mark.parametrize("raw", [b'{"a": 1}', b'{"a": 18446744073709551616}', b" {} \n"])
def test_ERR09_documents_that_are_fine(raw: bytes) -> None:
    assert isinstance(decode_document(raw), dict)


def test_ERR09_hostile_documents() -> None:
    for raw in (b"[" * 100_000, b'{"a": ' + b"1" * 5000 + b"}", b'{"a": 1e999}'):
        with pytest.raises(HostileDocumentError):
            decode_document(raw)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("application/json", "application/json"),
        ("application/json; charset=utf-8", "application/json"),
        (" application/vnd.oci.image.index.v1+json ;x", "application/vnd.oci.image.index.v1+json"),
        ("application", None),
        ("application/json x", None),
        ("application/ json", None),
        (";", None),
        ("a/b/c", None),
        ("é/x", None),
    ],
)
def test_HTTP04_media_type(value: str | None, expected: str | None) -> None:
    assert parse_media_type(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('299 - "going away"', "going away"),
        (r'299 - "say \"hi\" \\"', r'say "hi" \\'.replace("\\\\", "\\")),
        ('299 - ""', ""),
        ('199 - "x"', None),
        ('299 host "x"', None),
        ("299 - x", None),
        ('299 - "x" "Wed, 21 Oct 2015 07:28:00 GMT"', None),
        ('299 - "a\nb"', None),
        ('299 - "a\x1bb"', None),
        ('299 - "a', None),
        ('299 - "' + '\\"' * 5000, None),
    ],
)
def test_ERR10_warnings(value: str, expected: str | None) -> None:
    assert parse_warning(value) == expected
