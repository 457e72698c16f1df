"""The page about mounting a registry, and the examples that it shows, do what they say."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from asupplemented.testing import FakeRegistry, Slow, build_image
from tests.modules import ROOT, code_blocks, read_page
from tests.web.clients import Exchange, aiohttp_client
from tests.web.test_catalog import authorization

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asupplemented import Session, web
    from tests.web.catalogs import FakeCatalog

EXAMPLES = ROOT / "docs" / "examples"
AUTHENTICATION, SCOPED = code_blocks(read_page("howto/tenants.md"), "python")
IMAGE = build_image(layers=[bytes(range(256)) * 4096])
LAYER = IMAGE.layers[0]


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as opened:
        opened.add("team/app", IMAGE)
        yield opened


def localized(example: str, registry: FakeRegistry, tmp_path: Path) -> str:
    """An example with the addresses and the directory of a test."""
    example = example.replace("docker://quay.io", f"docker://{registry.host}")
    example = example.replace("mirror.lan", registry.host).replace("/srv", str(tmp_path))
    return example.replace("asup.Session(", "asup.Session(tls_verify=False, ")


def run(example: str, registry: FakeRegistry, tmp_path: Path) -> dict[str, Any]:
    # Its annotations name modules that FastAPI looks up.
    names: dict[str, Any] = {"__name__": "docs_serving"}
    code = compile(localized(example, registry, tmp_path), "an example", "exec", dont_inherit=True)
    exec(code, names)  # noqa: S102 - our own documentation
    return names


@pytest.mark.parametrize(("name", "most"), [("proxy", 10), ("aiohttp_proxy", 30)])
async def test_the_examples_for_aiohttp(
    name: str, most: int, registry: FakeRegistry, tmp_path: Path
) -> None:
    example = (EXAMPLES / f"{name}.py").read_text("utf-8")
    assert count_lines(example) <= most
    app = await run(example, registry, tmp_path)["make_app"]()
    registry.script(LAYER, Slow(64 * 1024, seconds=0.001), forever=True)
    async with TestClient(TestServer(app)) as client:
        for target in ("/v2/quay.io/team/app", "/v2/team/app"):
            reply = await client.get(f"{target}/manifests/latest?ns=quay.io")
            assert await reply.read() == IMAGE.raw

        async def read_layer() -> bytes:
            return await (await client.get(f"/v2/quay.io/team/app/blobs/{LAYER}")).read()

        assert set(await asyncio.gather(*(read_layer() for _ in range(10)))) == {IMAGE.blobs[LAYER]}
        assert registry.count(f"*/blobs/{LAYER}") == 1


def count_lines(example: str) -> int:
    """Lines of code: neither empty ones nor docstrings, which have one line each."""
    lines = (line.strip() for line in example.splitlines())
    return sum(1 for line in lines if line and not line.startswith('"""'))


async def test_the_example_for_FastAPI(registry: FakeRegistry, tmp_path: Path) -> None:
    example = (EXAMPLES / "fastapi_proxy.py").read_text("utf-8")
    assert count_lines(example) <= 30
    app = run(example, registry, tmp_path)["app"]
    async with app.router.lifespan_context(app):
        exchange = Exchange("GET", "/v2/team/app/manifests/latest?ns=quay.io")
        await app(exchange.scope, exchange.receive, exchange.send)
        assert exchange.reply().body == IMAGE.raw


async def test_the_examples_of_authentication(
    registry: FakeRegistry,
    tmp_path: Path,
    catalog: FakeCatalog,
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = run(AUTHENTICATION, registry, tmp_path)
    monkeypatch.setenv("REGISTRY_TOKEN", "right")
    token = ("Authorization", "Bearer right")
    known = authorization("ann", "a long password")
    for example, right in (
        ("with_passwords", known),
        ("with_upstream_accounts", authorization("bob", "any")),
        ("with_tokens", token),
    ):
        authenticate: web.Authenticate = names[example]
        async with aiohttp_client(catalog, session, authenticate=authenticate) as client:
            assert (await client.get("/v2/team/app/tags/list")).status == 401
            assert (await client.get("/v2/team/app/tags/list", right)).status == 200
            if right is token:
                assert (await client.get("/v2/other/tags/list", token)).status == 403
    wrong = authorization("ann", "wrong"), authorization("eve", "")
    async with aiohttp_client(catalog, session, authenticate=names["with_passwords"]) as client:
        for each in wrong:
            assert (await client.get("/v2/", each)).status == 401
