"""Signatures that lie beside a registry: in files, and on web servers."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from asupplemented.errors import (
    ConfigurationError,
    ForbiddenError,
    LayoutError,
    LimitExceededError,
    MalformedResponseError,
    ServerError,
    SourceError,
    UnexpectedStatusError,
)
from asupplemented.events import Warned
from asupplemented.hostconfig import ConfigurationPaths, Lookaside
from asupplemented.limits import MAX_SIGNATURE, MAX_SIGNATURES
from asupplemented.model.signature import Signature
from asupplemented.testing import (
    Authority,
    Basic,
    Encoding,
    FakeRegistry,
    Headers,
    Redirect,
    Status,
)
from tests.transports.registry.sessions import OPTIONS_HERE, fill, watch
from tests.transports.registry.signing import (
    BYTES,
    SIGNATURES,
    get,
    serve,
    store,
    watch_at,
)

if TYPE_CHECKING:
    from pathlib import Path


async def test_SIG02_files_are_read_until_one_is_missing(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    first = store(tmp_path)
    first.with_name("signature-5").write_bytes(BYTES[0])
    async with watch_at(tmp_path.as_uri()) as watched:
        assert await get(watched, fill(registry)) == SIGNATURES


async def test_SIG02_a_web_server_is_asked_until_one_is_missing(
    registry: FakeRegistry, other: FakeRegistry
) -> None:
    home = serve(other)
    async with watch_at(f"{other.url}/sigs") as watched:
        assert await get(watched, fill(registry)) == SIGNATURES
    asked = [request.target for request in other.requests]
    assert asked == [f"{home}/signature-{n}" for n in (1, 2, 3, 4)]
    assert other.requests[0].header("Accept") == "*/*"


@pytest.mark.parametrize("base", ["file:///nowhere", "file://localhost/nowhere"])
async def test_SIG02_there_may_be_none(registry: FakeRegistry, base: str) -> None:
    async with watch_at(base) as watched:
        assert await get(watched, fill(registry)) == ()


async def test_SIG02_the_base_may_be_quoted(registry: FakeRegistry, tmp_path: Path) -> None:
    directory = tmp_path / "of our own, 100 % é"
    store(directory)
    async with watch_at(directory.as_uri()) as watched:
        assert await get(watched, fill(registry)) == SIGNATURES


@pytest.mark.parametrize(
    "base",
    [
        "ftp://host/x",
        "sigs",
        "",
        "file://elsewhere/sigs",
        "file:relative",
        "file:",
        "file:///a%00b",
        "http://",
        "https://user:sentinel@host/x",
    ],
)
async def test_SIG02_other_bases_are_errors(registry: FakeRegistry, base: str) -> None:
    async with watch_at(base) as watched:
        with pytest.raises(ConfigurationError) as caught:
            await get(watched, fill(registry))
    assert "sentinel" not in str(caught.value)


@pytest.mark.parametrize("place", ["file", "http"])
@pytest.mark.parametrize("count", [MAX_SIGNATURES, MAX_SIGNATURES + 1])
async def test_SIG02_there_are_127_at_most(
    registry: FakeRegistry, other: FakeRegistry, tmp_path: Path, place: str, count: int
) -> None:
    blobs = [b"\x90%d" % n for n in range(count)]
    home = serve(other, blobs)
    store(tmp_path, blobs=blobs)
    async with watch_at(tmp_path.as_uri() if place == "file" else f"{other.url}/sigs") as watched:
        if count > MAX_SIGNATURES:
            with pytest.raises(LimitExceededError) as caught:
                await get(watched, fill(registry))
            assert caught.value.limit == MAX_SIGNATURES
        else:
            found = await get(watched, fill(registry))
            assert [each.data for each in found] == blobs
    assert other.count(f"{home}/signature-129") == 0


@pytest.mark.parametrize("place", ["file", "http"])
@pytest.mark.parametrize("spare", [0, 1])
async def test_SIG02_each_has_a_limit(
    registry: FakeRegistry, other: FakeRegistry, tmp_path: Path, place: str, spare: int
) -> None:
    blob = b"\x90".ljust(MAX_SIGNATURE + spare)
    serve(other, [blob])
    store(tmp_path, blobs=[blob])
    async with watch_at(tmp_path.as_uri() if place == "file" else f"{other.url}/sigs") as watched:
        if spare:
            with pytest.raises(LimitExceededError):
                await get(watched, fill(registry))
        else:
            [found] = await get(watched, fill(registry))
            assert found.data == blob


async def test_SIG02_framed_signatures_are_read(registry: FakeRegistry, tmp_path: Path) -> None:
    framed = Signature("sigstore-json", b'{"mimeType":""}')
    store(tmp_path, blobs=[framed.to_blob(), BYTES[0]])
    async with watch_at(tmp_path.as_uri()) as watched:
        assert await get(watched, fill(registry)) == (framed, SIGNATURES[0])


@pytest.mark.parametrize("place", ["file", "http"])
async def test_SIG02_what_is_no_signature_is_an_error(
    registry: FakeRegistry, other: FakeRegistry, tmp_path: Path, place: str
) -> None:
    serve(other, [b"<html>"])
    store(tmp_path, blobs=[b"<html>"])
    reference = fill(registry)
    async with watch_at(tmp_path.as_uri() if place == "file" else f"{other.url}/sigs") as watched:
        with pytest.raises(LayoutError) as caught:
            await get(watched, reference)
    assert (caught.value.reference, caught.value.digest) == (reference, None)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Status(403), ForbiddenError),
        (Status(400, body=b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}'), UnexpectedStatusError),
        (Status(410), UnexpectedStatusError),
        (Status(204), UnexpectedStatusError),
        (Status(500), ServerError),
        (Encoding(), MalformedResponseError),
    ],
)
async def test_SIG02_any_other_status_is_an_error(
    registry: FakeRegistry, other: FakeRegistry, fault: Any, error: type[Exception]
) -> None:
    home = serve(other)
    other.script(f"{home}/signature-2", fault, forever=True)
    async with watch_at(f"{other.url}/sigs") as watched:
        with pytest.raises(error):
            await get(watched, fill(registry))


async def test_SIG02_a_busy_server_is_asked_again(
    registry: FakeRegistry, other: FakeRegistry
) -> None:
    home = serve(other)
    other.script(f"{home}/signature-2", Status(503), Status(429))
    async with watch_at(f"{other.url}/sigs") as watched:
        assert await get(watched, fill(registry)) == SIGNATURES


async def test_SIG02_a_page_for_people_is_only_warned_of(
    registry: FakeRegistry, other: FakeRegistry
) -> None:
    home = serve(other)
    other.script(f"{home}/signature-1", Headers({"Content-Type": "text/html; charset=utf-8"}))
    async with watch_at(f"{other.url}/sigs?token=sentinel") as watched:
        assert await get(watched, fill(registry)) == SIGNATURES
        [warning] = watched.told(Warned)
    assert "HTML page" in warning.message
    assert "sentinel" not in warning.message
    assert other.requests[0].argument("token") == "sentinel"


async def test_CRED03_the_server_beside_gets_no_credentials(other: FakeRegistry) -> None:
    async with FakeRegistry(access=Basic({"bob": "secret"})) as registry:
        home = serve(registry, base="")
        serve(other)
        reference = fill(registry)
        credentials = {registry.host: ("bob", "secret")}
        async with watch_at(f"{other.url}/sigs", credentials=credentials) as watched:
            assert await get(watched, reference) == SIGNATURES
        assert all(request.header("Authorization") is None for request in other.requests)
        # Not even if it is the registry itself.
        registry.access = None
        async with watch_at(registry.url, credentials=credentials) as watched:
            assert await get(watched, reference) == SIGNATURES
        asked = registry.select_requests(f"{home}/*")
        assert len(asked) == 4
        assert all(request.header("Authorization") is None for request in asked)


async def test_TLS05_the_server_beside_is_verified_although_the_registry_is_not(
    registry: FakeRegistry,
) -> None:
    async with FakeRegistry(tls=Authority().server_context()) as beside:
        serve(beside)
        async with watch_at(f"{beside.url}/sigs") as watched:
            with pytest.raises(SourceError, match="certificate"):
                await get(watched, fill(registry))
        assert beside.requests == []


async def test_SEC01_the_server_beside_may_redirect_but_not_to_what_is_more_private(
    registry: FakeRegistry, other: FakeRegistry
) -> None:
    home = serve(other)
    moved = other.put_file("/moved", BYTES[0])
    other.script(f"{home}/signature-1", Redirect(moved), Redirect("http://169.254.169.254/x"))
    async with watch_at(f"{other.url}/sigs") as watched:
        assert await get(watched, fill(registry)) == SIGNATURES
        with pytest.raises(MalformedResponseError, match="more private"):
            await get(watched, fill(registry))


@pytest.mark.parametrize("which", ["file", "directory", "way", "missing"])
async def test_SEC11_a_link_out_of_the_base_is_refused(
    registry: FakeRegistry, tmp_path: Path, which: str
) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    secret = store(outside)
    inside.mkdir()
    if which == "way":
        (inside / "team").symlink_to(outside / "team")
    elif which == "directory":
        (inside / "team").mkdir()
        (inside / "team" / secret.parent.name).symlink_to(secret.parent)
    else:
        first = store(inside, blobs=[])
        first.symlink_to(secret if which == "file" else outside / "nothing")
    async with watch_at(inside.as_uri()) as watched:
        with pytest.raises(LayoutError, match="leads out"):
            await get(watched, fill(registry))


async def test_SEC11_links_within_the_base_and_to_it_are_fine(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    real = tmp_path / "real"
    first = store(real)
    first.with_name("signature-4").symlink_to("signature-1")
    (tmp_path / "base").symlink_to(real)
    async with watch_at((tmp_path / "base").as_uri()) as watched:
        assert await get(watched, fill(registry)) == (*SIGNATURES, SIGNATURES[0])


@pytest.mark.parametrize("kind", ["directory", "fifo"])
async def test_SIG02_what_is_no_file_is_an_error(
    registry: FakeRegistry, tmp_path: Path, kind: str
) -> None:
    first = store(tmp_path, blobs=[])
    first.mkdir() if kind == "directory" else os.mkfifo(first)
    async with watch_at(tmp_path.as_uri()) as watched:
        with pytest.raises(LayoutError):
            await get(watched, fill(registry))


@pytest.mark.parametrize("text", ["sha256:../../x", "sha256:" + "A" * 64, "", "latest"])
async def test_SIG02_SEC03_what_is_no_digest_is_not_looked_for(
    registry: FakeRegistry, other: FakeRegistry, text: str
) -> None:
    async with watch_at(f"{other.url}/sigs") as watched:
        with pytest.raises(ValueError, match="digest"):
            await get(watched, fill(registry), text)
    assert other.connections == 0


async def test_SIG04_SIG05_what_is_configured_in_files_counts(
    registry: FakeRegistry, other: FakeRegistry, tmp_path: Path
) -> None:
    serve(other)
    (tmp_path / "here.yaml").write_text(
        f"docker:\n  {registry.host}/team:\n    lookaside: {other.url}/sigs\n"
    )
    found = await Lookaside.load(ConfigurationPaths(lookaside=tmp_path))
    async with watch(options=replace(OPTIONS_HERE, signature_places=found)) as watched:
        assert await get(watched, fill(registry)) == SIGNATURES
        assert await get(watched, fill(registry, "another/app")) == ()
