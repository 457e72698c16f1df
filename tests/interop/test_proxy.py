"""The proxy of the documentation, and skopeo as its client."""

from __future__ import annotations

import asyncio
import importlib.util
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from aiohttp.test_utils import TestServer

import asupplemented as asup
from tests.interop.reading import read_reference
from tests.modules import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.interop.busybox import Family
    from tests.interop.places import Places
    from tests.interop.programs import Skopeo


def load() -> Any:
    spec = importlib.util.spec_from_file_location("proxy", ROOT / "docs/examples/proxy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_skopeo_pulls_through_the_proxy_of_the_documentation(
    family: Family, skopeo: Skopeo, places: Places, tmp_path: Path
) -> None:
    example = load()
    upstream = places.find("docker", "family")
    skopeo.copy(family.reference(), upstream, "--all")
    async with AsyncExitStack() as scope:
        cache = await scope.enter_async_context(asup.LayoutCache(tmp_path / "cache", 1 << 30))
        session = asup.Session(tls_verify=False, cache=cache)
        await scope.enter_async_context(session)
        image = await scope.enter_async_context(asup.supplement(upstream).open(session))
        server = TestServer(example.make_app(image))
        await scope.enter_async_context(server)
        pulled = f"docker://127.0.0.1:{server.port}/family:any"
        copies = [places.find("oci", f"through{number}") for number in range(3)]
        # At once and cold, then one more from the cache.
        copying = [
            asyncio.to_thread(skopeo.copy, pulled, copy, "--all", "--preserve-digests")
            for copy in copies
        ]
        await asyncio.gather(*copying[:2])
        await copying[2]
        assert await asyncio.to_thread(skopeo.read_raw, pulled) == family.index
        for copy in copies:
            assert await read_reference(copy, session) == family.contents()
