"""A registry that limits requests as Docker Hub does, and a cache in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asupplemented.abc import BlobCache
from asupplemented.testing import Status

if TYPE_CHECKING:
    from asupplemented import Context, Descriptor, Digest, Manifest
    from asupplemented.abc import BlobFile, Spool
    from asupplemented.testing import Answer, Request
    from tests.clocks import FakeClock

WINDOW = 6 * 60 * 60


class Hub:
    """The limit of one account: a fault for the manifests of a `FakeRegistry`.

    Args:
        clock: Where time comes from.
        limit: Requests in a window, which begins with the first one.
        heads: Whether HEAD counts, too. That of Docker Hub does not.

    Attributes:
        counted: Requests of all windows that counted.
        refused: Requests that were answered 429.
    """

    def __init__(self, clock: FakeClock, *, limit: int = 100, heads: bool = False) -> None:
        self._clock = clock
        self._limit = limit
        self._heads = heads
        self._began = -float(WINDOW)
        self._left = limit
        self.counted = 0
        self.refused = 0

    def __call__(self, answer: Answer, request: Request) -> Answer:
        now = self._clock.time
        if now >= self._began + WINDOW:
            self._began, self._left = now, self._limit
        counts = self._heads or request.method == "GET"
        if counts and not self._left:
            self.refused += 1
            answer = Status(429, {"Retry-After": str(self._ends - int(now))})(answer, request)
        elif counts:
            self.counted += 1
            self._left -= 1
        return answer.with_headers(
            {
                "RateLimit-Limit": f"{self._limit};w={WINDOW}",
                "RateLimit-Remaining": f"{self._left};w={WINDOW}",
            }
        )

    @property
    def _ends(self) -> int:
        return int(self._began) + WINDOW


class MemoryCache(BlobCache):
    """Keeps manifests only, by the source that they were read from."""

    def __init__(self) -> None:
        self.manifests: dict[tuple[Digest, str | None], Manifest] = {}

    async def find(
        self, session: Context, blob: Descriptor, *, shared: bool = False
    ) -> BlobFile | None:
        del session, blob, shared
        return None

    async def claim(self, session: Context, blob: Descriptor) -> Spool | None:
        del session, blob
        return None

    async def find_manifest(
        self, session: Context, digest: Digest, *, source: str | None = None
    ) -> Manifest | None:
        del session
        return self.manifests.get((digest, source))

    async def keep_manifest(
        self, session: Context, manifest: Manifest, *, top: bool, source: str | None = None
    ) -> None:
        del session, top
        self.manifests[manifest.digest, source] = manifest

    async def aclose(self) -> None:
        self.manifests.clear()
