"""A registry in the process of the test: it answers correctly, or fails by script."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from asupplemented.model.digest import Digest
from asupplemented.testing.content import Content, Repository
from asupplemented.testing.disk import select
from asupplemented.testing.exchange import Pause
from asupplemented.testing.server import Server

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Container

    from asupplemented.testing.access import Access
    from asupplemented.testing.exchange import Answer, Request
    from asupplemented.testing.images import Built
    from asupplemented.testing.steps import Sleep

__all__ = ("FakeRegistry",)

OCTETS: Final = "application/octet-stream"


class FakeRegistry(Server):
    """A read-only registry on 127.0.0.1, with a script of faults and a log of requests.

    ::

        async with FakeRegistry() as registry:
            registry.add("team/app", build_image())
            registry.script("/v2/team/app/manifests/latest", Status(503), None, Cut(after=10))
            async with supplement(registry.reference("team/app")).open(session) as image:
                ...
            assert registry.count("/v2/team/app/blobs/*") == 0

    The content is in memory and is not checked: a digest may be wrong.

    Args:
        access: Access control: `Basic`, `Bearer`; None for none.
        tls: The TLS context, see `Authority.server_context`; None for plain HTTP.
        latency: Seconds before each answer, or a function of the request.
        referrers: Whether the referrers API exists.
        page_size: The most tags or referrers in one answer; None for all.
        sleep: Sleeps for a number of seconds.
    """

    def __init__(
        self,
        *,
        access: Access | None = None,
        tls: ssl.SSLContext | None = None,
        latency: float | Callable[[Request], float] = 0.0,
        referrers: bool = True,
        page_size: int | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        super().__init__(tls=tls, sleep=sleep)
        self.access: Access | None = access
        """May be changed between requests, like all of these attributes."""
        self.latency: float | Callable[[Request], float] = latency
        self.content = Content(referrers=referrers, page_size=page_size)

    def reference(self, repository: str, tag: str = "latest") -> str:
        """The ``docker://`` reference of a tag of a repository, or of a digest in its place."""
        return f"docker://{self.host}/{repository}{'@' if ':' in tag else ':'}{tag}"

    def repository(self, name: str) -> Repository:
        """The content of the repository `name`, created on first use. It may be changed."""
        return self.content.repositories.setdefault(name, Repository())

    def add(
        self,
        repository: str,
        top: Built,
        *,
        tag: str | None = "latest",
        include: Container[str] | None = None,
        omit: Container[str] = (),
    ) -> str:
        """Add a built image to a repository, complete or with parts missing.

        Args:
            repository: The name of the repository, created on first use.
            top: The image or index.
            tag: The tag; None for no tag.
            include: Digests of the instances to add; None for all; see `select`.
            omit: Digests of manifests and blobs to leave out.

        Returns:
            The reference by tag, or by digest without a tag.
        """
        manifests, blobs = select(top, include, omit)
        for digest, built in manifests.items():
            self.put_manifest(repository, built.raw, built.media_type, digest=digest)
        for digest, data in blobs.items():
            self.put_blob(repository, data, digest=digest)
        if tag is None:
            return self.reference(repository, top.digest)
        self.repository(repository).tags[tag] = top.digest
        return self.reference(repository, tag)

    def put_manifest(
        self,
        repository: str,
        raw: bytes,
        media_type: str,
        *,
        tag: str | None = None,
        digest: str | None = None,
    ) -> str:
        """Store bytes as a manifest.

        Args:
            repository: The name of the repository, created on first use.
            raw: Any bytes.
            media_type: Their ``Content-Type``.
            tag: A tag for them, or None.
            digest: The digest to store them under, which may be wrong; None computes it.

        Returns:
            The digest under which they are stored.
        """
        key = Digest.of(raw) if digest is None else digest
        self.repository(repository).manifests[key] = (raw, media_type)
        if tag is not None:
            self.repository(repository).tags[tag] = key
        return key

    def put_blob(self, repository: str, data: bytes, *, digest: str | None = None) -> str:
        """Store data as a blob of a repository, under their digest or another, even a wrong one.

        Returns:
            The digest under which they are stored.
        """
        key = Digest.of(data) if digest is None else digest
        self.repository(repository).blobs[key] = data
        return key

    def put_file(self, path: str, data: bytes, media_type: str = OCTETS) -> str:
        """Serve data of a media type at a path outside of the API, as a storage back end does.

        Returns:
            The URL.
        """
        self.content.files[path] = (data, media_type)
        return self.url + path

    async def respond(self, request: Request) -> Answer:
        """Make the correct answer to a request, and apply a script to it."""
        answer = self._revise(self._answer_rightly(request), request)
        seconds = self.latency(request) if callable(self.latency) else self.latency
        return answer.with_pause(Pause(at=None, seconds=seconds)) if seconds else answer

    def _answer_rightly(self, request: Request) -> Answer:
        if self.access is None:
            return self.content.answer(request)
        answer = self.access.answer(request, self.url) or self.content.answer(request)
        return replace(answer, challenge=self.access.challenge(request, self.url))
