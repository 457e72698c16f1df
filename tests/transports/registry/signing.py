"""Signatures for tests, and the places where they are looked for."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from asupplemented.model.signature import Signature
from asupplemented.testing import FakeRegistry, Headers
from tests.transports.registry.sessions import IMAGE, LIMITS, OPTIONS_HERE, fill, watch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from asupplemented.model.digest import Digest
    from asupplemented.model.name import ImageName
    from asupplemented.transports.registry.options import RegistryLimits, RegistryOptions
    from tests.transports.registry.sessions import Watched

BYTES = [b"\x90%d signed" % n for n in range(3)]
SIGNATURES = tuple(Signature("simple-signing", each) for each in BYTES)
EXTENSION = f"/extensions/v2/team/app/signatures/{IMAGE.digest}"
ATTACHED = IMAGE.digest.replace(":", "-") + ".sig"
SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"


@dataclass(frozen=True)
class Places:
    """Where signatures are, whatever the image."""

    url: str | None = None
    attachments: bool = False

    def find_url(self, name: ImageName) -> str | None:
        return self.url

    def uses_attachments(self, name: ImageName) -> bool:
        return self.attachments


def looking(
    url: str | None = None, *, attachments: bool = False, limits: RegistryLimits = LIMITS
) -> RegistryOptions:
    """The usual options, with places for signatures."""
    return replace(OPTIONS_HERE, signature_places=Places(url, attachments), limits=limits)


def watch_at(url: str, **settings: Any) -> AbstractAsyncContextManager[Watched]:
    return watch(options=looking(url), **settings)


async def get(
    watched: Watched, reference: str, instance: str | None = None
) -> tuple[Signature, ...]:
    async with await watched.open(reference) as source:
        return await source.get_signatures(instance)


def speak(registry: FakeRegistry, document: Any = None, value: str | None = "1") -> str:
    """Have a registry speak the extension."""
    registry.script("/v2/", Headers({"X-Registry-Supports-Signatures": value}), forever=True)
    if document is not None:
        registry.put_file(EXTENSION, json.dumps(document).encode(), "application/json")
    return fill(registry)


def listed(*blobs: bytes, **more: Any) -> dict[str, Any]:
    """What the extension answers."""
    entries = [
        {
            "schemaVersion": 2,
            "name": f"{IMAGE.digest}@{n}",
            "type": "atomic",
            "content": base64.b64encode(blob).decode(),
        }
        | more
        for n, blob in enumerate(blobs)
    ]
    return {"signatures": entries}


def store(directory: Path, digest: Digest = IMAGE.digest, blobs: Sequence[bytes] = BYTES) -> Path:
    """Lay signatures down as other programs do; where the first one is."""
    home = directory / f"team/app@{digest.algorithm}={digest.encoded}"
    home.mkdir(parents=True)
    for number, blob in enumerate(blobs, 1):
        (home / f"signature-{number}").write_bytes(blob)
    return home / "signature-1"


def serve(server: FakeRegistry, blobs: Sequence[bytes] = BYTES, base: str = "/sigs") -> str:
    """Put signatures on a web server; the path of all of them."""
    home = f"{base}/team/app@sha256={IMAGE.digest.encoded}"
    for number, blob in enumerate(blobs, 1):
        server.put_file(f"{home}/signature-{number}", blob)
    return home
