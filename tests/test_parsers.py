"""Every parser takes variants of the documents in tests/corpus, and refuses them properly.

A parser returns a value or raises an error that its callers expect, whatever it is given. A
document in the corpus is a file in the directory of its parser; texts of one line are the lines of
one file. ``nox -s fuzz`` tries many more variants. Add what it finds to the corpus.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from asupplemented.aio.retry import parse_retry_after
from asupplemented.credentials.auth_json import parse_auth_file
from asupplemented.credentials.helper_process import Outcome
from asupplemented.credentials.helpers import parse_answer
from asupplemented.errors import (
    ConfigurationError,
    InvalidDigestError,
    InvalidPlatformError,
    InvalidReferenceError,
    LimitExceededError,
    MalformedManifestError,
    MalformedResponseError,
    ManifestError,
    SourceError,
    UnknownTransportError,
    UnsupportedDigestError,
)
from asupplemented.hostconfig.proxies import NoProxyEntry
from asupplemented.hostconfig.registries_conf import parse_registries_conf
from asupplemented.hostconfig.registries_d import Lookaside
from asupplemented.model import media_type as kinds
from asupplemented.model import strict_json
from asupplemented.model.config import ImageConfig
from asupplemented.model.digest import Digest
from asupplemented.model.manifest import Manifest
from asupplemented.model.name import ImageName
from asupplemented.model.platform import Platform
from asupplemented.model.sizes import parse_size
from asupplemented.oci_layout import LayoutIndex
from asupplemented.serve.config import ServeConfig, find_mistakes
from asupplemented.serve.toml_file import read_struct
from asupplemented.supplemented.resolution import Resolution
from asupplemented.transports import parse_reference
from asupplemented.transports.registry.addresses import parse_origin
from asupplemented.transports.registry.byteranges import (
    Multipart,
    parse_content_range,
    parse_unsatisfied_range,
)
from asupplemented.transports.registry.challenge import parse_challenges
from asupplemented.transports.registry.error_response import parse_warning
from asupplemented.transports.registry.listing import TagList, find_next
from asupplemented.transports.registry.notices import parse_allowance
from asupplemented.transports.registry.redirects import parse_url
from asupplemented.transports.registry.signatures import parse_extension
from asupplemented.transports.registry.tokens import parse_token
from asupplemented.web.ranges import TooManyRangesError, parse_range
from asupplemented.web.request import Request, plan

if TYPE_CHECKING:
    from collections.abc import Callable

CORPUS = Path(__file__).parent / "corpus"
PLACE = "https://registry.example/"
HERE = Path("file")


class Parser(NamedTuple):
    """What is called, and which errors it may raise."""

    parse: Callable[[bytes], object]
    errors: tuple[type[Exception], ...] = ()


def of_text(parse: Callable[[str], object], *errors: type[Exception]) -> Parser:
    """A parser of text, which is given as the operating system and aiohttp give it."""
    return Parser(lambda data: parse(data.decode("utf-8", "surrogateescape")), errors)


def of_document(parse: Callable[[str], object], *errors: type[Exception]) -> Parser:
    """A parser of the text of a file, which is UTF-8."""
    return Parser(lambda data: parse(data.decode("utf-8", "replace")), errors)


def of_manifest(media_type: str) -> Parser:
    def parse(data: bytes) -> object:
        return Manifest.verified(data, media_type, None).parse()

    return Parser(parse, (ManifestError, LimitExceededError))


def read_multipart(data: bytes) -> object:
    reader = Multipart("b")
    for start in range(0, len(data), 7):
        reader.feed(data[start : start + 7])
        while reader.advance() is not None:
            pass
    reader.finish()
    return reader.advance()


def read_tags(data: bytes) -> object:
    TagList(1000).add_page(data, PLACE)
    return None


def read_link(text: str) -> object:
    return find_next([text], URL("https://registry.example/v2/app/tags/list"))


def read_target(text: str) -> object:
    path, _, query = text.removeprefix("/v2").partition("?")
    return plan(Request("GET", path, query))


def read_sections(text: str) -> object:
    return Lookaside.parse([(HERE, text)])


def read_settings(text: str) -> object:
    return read_struct(text, HERE, ServeConfig, partial(find_mistakes, files=False))


REFUSED = (InvalidReferenceError, InvalidDigestError, UnsupportedDigestError)

PARSERS: dict[str, Parser] = {
    "auth-file": Parser(lambda data: parse_auth_file(data, "file"), (ConfigurationError,)),
    "challenge": of_text(lambda text: parse_challenges([text])),
    "config": Parser(ImageConfig.parse, (ManifestError,)),
    "content-range": of_text(
        lambda text: (parse_content_range([text]), parse_unsatisfied_range([text]))
    ),
    "digest": of_text(Digest.parse, InvalidDigestError, UnsupportedDigestError),
    "helper-answer": Parser(
        lambda data: parse_answer(Outcome(0, data), "helper", "registry.example"),
        (SourceError, ConfigurationError),
    ),
    "index": of_manifest(kinds.OCI_INDEX),
    "layout-index": Parser(
        lambda data: strict_json.decode(data, LayoutIndex, trailing=True), (MalformedManifestError,)
    ),
    "link": of_text(read_link, MalformedResponseError),
    "manifest": of_manifest(kinds.OCI_MANIFEST),
    "multipart": Parser(read_multipart, (ValueError,)),
    "name": of_text(ImageName.parse, *REFUSED),
    "no-proxy": of_text(NoProxyEntry.parse),
    "origin": of_text(parse_origin, ValueError),
    "platform": of_text(Platform.parse, InvalidPlatformError),
    "range": of_text(lambda text: parse_range(text, 10), TooManyRangesError),
    "rate-limit": of_text(lambda text: parse_allowance([text])),
    "reference": of_text(parse_reference, *REFUSED, UnknownTransportError),
    "registries-conf": of_document(
        lambda text: parse_registries_conf(text, HERE), ConfigurationError
    ),
    "registries-d": of_document(read_sections, ConfigurationError),
    "request": of_text(read_target),
    "resolution": Parser(Resolution.from_json, (ConfigurationError,)),
    "retry-after": of_text(lambda text: parse_retry_after([text], now=1_800_000_000)),
    "schema1": of_manifest(kinds.DOCKER_SCHEMA1_SIGNED),
    "serve-config": of_document(read_settings, ConfigurationError),
    "signatures": Parser(lambda data: parse_extension(data, PLACE), (MalformedResponseError,)),
    "size": of_text(parse_size, ConfigurationError),
    "tags": Parser(read_tags, (MalformedResponseError, LimitExceededError)),
    "token": Parser(
        lambda data: parse_token(data, now=1_800_000_000, longest=3600, place=PLACE),
        (MalformedResponseError,),
    ),
    "url": of_text(parse_url, ValueError),
    "warning": of_text(parse_warning),
}


def read_corpus() -> dict[str, list[bytes]]:
    """The documents of each parser."""
    corpus: dict[str, list[bytes]] = {}
    for path in sorted(CORPUS.iterdir()):
        if path.is_dir():
            corpus[path.name] = [each.read_bytes() for each in sorted(path.iterdir())]
        else:
            corpus[path.stem] = path.read_bytes().splitlines()
    return corpus


SEEDS = read_corpus()

PIECES = st.sampled_from(
    [
        *(b"", b"\0", b"\n", b"\r\n", b" ", b'"', b"\\", b"'", b",", b":", b";", b"=", b"/", b"@"),
        *(b"%", b"%00", b"%2f", b"..", b"[", b"]", b"{", b"}", b"*", b"-", b"-1", b"0", b"1e999"),
        *(b"null", b"true", b"[]", b"{}", b'""', b"9" * 30, b"9" * 5000, b"[" * 3000, b"a" * 5000),
        *(
            "\u0660\uff11\u00b2".encode(),
            "\u212a".encode(),
            b"\xff",
            b"\xed\xa0\x80",
            b"\xef\xbb\xbf",
        ),
    ]
) | st.binary(max_size=6)


@st.composite
def variants(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A document with pieces of it replaced, by others and by pieces of other documents."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from((0, 0, 1, 2, 5, 20, 10_000))))
        if draw(st.booleans()):
            piece = draw(PIECES)
        else:
            other = draw(st.sampled_from(seeds))
            cut = draw(st.integers(0, len(other)))
            piece = other[cut : cut + draw(st.integers(1, 40))]
        data = data[:start] + piece + data[end:]
    return data


def test_every_parser_has_a_corpus() -> None:
    assert set(SEEDS) == set(PARSERS)


@pytest.mark.parametrize("name", PARSERS)
def test_the_corpus_is_parsed_or_refused(name: str) -> None:
    accepted = 0
    for data in SEEDS[name]:
        try:
            PARSERS[name].parse(data)
        except PARSERS[name].errors:
            continue
        accepted += 1
    assert accepted, "variants of what is refused anyway would find little"


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.data())
def test_a_variant_is_parsed_or_refused(name: str, data: Any) -> None:
    document = data.draw(variants(SEEDS[name]))
    try:
        PARSERS[name].parse(document)
    except PARSERS[name].errors as error:
        message = str(error)
    else:
        return
    assert len(message) < 2000  # an excerpt, not the document
