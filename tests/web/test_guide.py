"""The page about mounting a registry does what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from asupplemented.testing import FakeRegistry, build_image
from tests.modules import ROOT, code_blocks
from tests.web.clients import Exchange, aiohttp_client
from tests.web.test_catalog import authorization

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asupplemented import Session, web
    from tests.web.catalogs import FakeCatalog

AIOHTTP, FASTAPI, AUTHENTICATION = code_blocks(
    (ROOT / "docs" / "serving.md").read_text("utf-8"), "python"
)
IMAGE = build_image(layers=[b"a layer"])


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as opened:
        opened.add("team/app", IMAGE)
        yield opened


def run(example: str, registry: FakeRegistry, tmp_path: Path) -> dict[str, Any]:
    example = example.replace("docker://quay.io", f"docker://{registry.host}")
    example = example.replace("mirror.lan", registry.host).replace("/srv", str(tmp_path))
    example = example.replace("asup.Session(", "asup.Session(tls_verify=False, ")
    # Its annotations name modules that FastAPI looks up.
    names: dict[str, Any] = {"__name__": "docs_serving"}
    exec(compile(example, "docs/serving.md", "exec", dont_inherit=True), names)  # noqa: S102
    return names


async def test_the_example_for_aiohttp(registry: FakeRegistry, tmp_path: Path) -> None:
    app = await run(AIOHTTP, registry, tmp_path)["make_app"]()
    async with TestClient(TestServer(app)) as client:
        for target in ("/v2/quay.io/team/app", "/v2/team/app"):
            reply = await client.get(f"{target}/manifests/latest?ns=quay.io")
            assert await reply.read() == IMAGE.raw


async def test_the_example_for_FastAPI(registry: FakeRegistry, tmp_path: Path) -> None:
    app = run(FASTAPI, registry, tmp_path)["app"]
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
