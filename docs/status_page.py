"""Take the screenshots of the status page: ``python docs/status_page.py [DIRECTORY]``.

They show an invented registry, so that they are the same each time. Needs Chromium.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from asupplemented.web import status as s  # noqa: E402 - the package beside this file
from asupplemented.web.admin import admin_app  # noqa: E402
from docs.browser import open_page  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

IMAGES = Path(__file__).parent / "images"
NOW = 1_795_960_931.0
MIB = 1 << 20
GIB = 1 << 30


def digest(name: str) -> str:
    """An invented digest."""
    return f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"


def build_running() -> tuple[s.RunningStatus, ...]:
    """What is being answered."""
    rows = (
        (*("quay.io/team/app", "docker://quay.io/team/app:1.4", "miss"), 312 * MIB, 448 * MIB, 6.1),
        (
            *("quay.io/team/app", "docker://quay.io/team/app:1.4", "joined"),
            312 * MIB,
            448 * MIB,
            4.2,
        ),
        (*("docker.io/library/python", "oci:/var/cache/registry", "hit"), 21 * MIB, 29 * MIB, 0.4),
        (*("docker.io/library/postgres", None, ""), 0, None, 1.3),
    )
    return tuple(
        s.RunningStatus(
            name=name,
            reference=digest(f"{name} layer"),
            client=f"10.0.3.{17 + number}",
            source=source,
            cache=cache,
            sent=sent,
            size=size,
            seconds=seconds,
        )
        for number, (name, source, cache, sent, size, seconds) in enumerate(rows)
    )


def build_plan() -> s.PlanStatus:
    """An image of two platforms, one of which a mirror supplies."""
    amd, arm = digest("amd64"), digest("arm64")

    def image(name: str, platform: str, members: tuple[int, ...], rule: str) -> s.ManifestStatus:
        blobs = s.BlobsStatus(
            count=12, size=468 * MIB, members=members, rule=f"{digest(name)} names it"
        )
        return s.ManifestStatus(
            digest=digest(name),
            kind="image",
            platform=platform,
            members=members,
            rule=rule,
            blobs=(blobs,),
        )

    index = s.ManifestStatus(
        digest=digest("index"),
        kind="index",
        platform=None,
        members=(0, 1),
        rule="its default manifest; the last member to have it as default serves it",
        blobs=(),
    )
    through = f"read through its list {digest('index')}"
    return s.PlanStatus(
        name="quay.io/team/app",
        reference="1.4",
        digest=digest("index"),
        stale=False,
        age=12.0,
        leases=2,
        members=(
            "docker://quay.io/team/app:1.4",
            "docker://mirror.lan:5000/team/app:1.4",
            "oci:/srv/airgap/app:1.4",
        ),
        unavailable={2: "LayoutError: /srv/airgap/app is no OCI layout"},
        manifests=(
            index,
            image(amd, "linux/amd64", (1, 0), f"{through}; any member is preferred over the top"),
            image(arm, "linux/arm64", (0,), f"{through}; no other member is known to hold it"),
        ),
        manifest_count=3,
        missing=(),
    )


def build_plans() -> tuple[s.PlanStatus, ...]:
    """Open images."""

    def plan(name: str, tag: str, *, age: float, stale: bool = False, leases: int) -> s.PlanStatus:
        return s.PlanStatus(
            name=name,
            reference=tag,
            digest=digest(name),
            stale=stale,
            age=age,
            leases=leases,
            members=(f"docker://{name}:{tag}",),
            unavailable={},
            manifests=(
                s.ManifestStatus(
                    digest=digest(name),
                    kind="index",
                    platform=None,
                    members=(0,),
                    rule="its default manifest, which is always read first",
                    blobs=(),
                ),
            ),
            manifest_count=9,
            missing=(),
        )

    return (
        build_plan(),
        plan("docker.io/library/python", "3.13-slim", age=37, leases=1),
        plan("docker.io/library/postgres", "17", age=4_210, stale=True, leases=0),
    )


def build_members() -> tuple[s.MemberStatus, ...]:
    """Two registries that work, one that fails, and the cache of another program."""
    resets = NOW + 3_469
    return (
        s.MemberStatus(
            source="docker://mirror.lan:5000/",
            health="failing",
            retry_in=14.0,
            error="NetworkError: mirror.lan:5000 refuses connections",
            failed=NOW - 26,
            requests=1_204,
            failures=9,
            seconds=0.004,
            served=61 * GIB,
        ),
        s.MemberStatus(
            source="docker://docker.io/",
            requests=412,
            failures=1,
            error="GET was answered with status 503",
            failed=NOW - 5_700,
            seconds=0.182,
            served=9 * GIB,
            budget=s.BudgetStatus(remaining=7, limit=100, resets=resets, low=True),
        ),
        s.MemberStatus(
            source="docker://quay.io/",
            requests=2_371,
            seconds=0.094,
            served=148 * GIB,
            budget=s.BudgetStatus(remaining=4_310, limit=5_000, resets=resets, low=False),
        ),
        s.MemberStatus(source="oci:/srv/airgap/app:1.4", served=3 * GIB),
    )


def build_status() -> s.Status:
    """The registry that the screenshots show."""
    evicted = (("node:20 layer", 184, 9 * 86_400.0, 41), ("go:1.22 layer", 92, 8.4 * 86_400, 41))
    requested = (
        ("quay.io/team/app", 4_120, 131, 1),
        ("docker.io/library/python", 2_844, 77, 1),
        ("docker.io/library/postgres", 391, 40, 2),
        ("quay.io/prometheus/node-exporter", 118, 4, 340),
    )
    return s.Status(
        version="0.1.0",
        started=NOW - 3 * 86_400 - 4 * 3_600,
        taken=NOW,
        processes=2,
        totals=s.Totals(
            requests=48_211,
            refused=37,
            failed=2,
            sent=1_412 * GIB,
            hits=44_018,
            misses=3_987,
            asked=3_987,
            fetched=218 * GIB,
        ),
        running=build_running(),
        running_count=4,
        members=build_members(),
        plans=build_plans(),
        plan_count=3,
        names=(
            s.NameStatus("docker.io/*", ("docker://docker.io/{name}",)),
            s.NameStatus(
                "quay.io/team/app",
                (
                    "docker://quay.io/team/app",
                    "docker://mirror.lan:5000/team/app",
                    "oci:/srv/airgap/app:1.4",
                ),
            ),
            s.NameStatus("quay.io/*", ("docker://quay.io/{name}",)),
        ),
        requested=tuple(
            s.RequestedName(name=name, requests=count, sent=sent * GIB, last=NOW - ago)
            for name, count, sent, ago in requested
        ),
        cache=s.CacheStatus(
            path="/var/cache/registry",
            bytes=41 * GIB,
            limit=50 * GIB,
            entries=8_412,
            pins=3,
            hits=44_018,
            misses=3_987,
            counted=NOW - 4,
        ),
        evictions=tuple(
            s.EvictionStatus(at=NOW - ago, digest=digest(name), size=size * MIB, unused=unused)
            for name, size, unused, ago in evicted
        ),
        warnings=(
            s.WarningStatus(
                at=NOW - 4_190,
                source="docker://docker.io/library/postgres",
                message=(
                    "docker://docker.io/library/postgres:17 failed, so what it had before is "
                    "served: docker.io is not asked, to keep within its limit: 7 of 100 requests "
                    "left until 15:00 UTC"
                ),
                count=1,
            ),
        ),
    )


@asynccontextmanager
async def serve(status: Callable[[], s.Status]) -> AsyncGenerator[str]:
    """Serve the page; gives its URL."""
    runner = web.AppRunner(admin_app(status=status, ready=lambda: True), shutdown_timeout=5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0]
        yield f"http://{host}:{port}/"
    finally:
        await runner.cleanup()


async def main(directory: Path) -> None:
    """Take both screenshots: wide and light, narrow and dark."""
    async with serve(build_status) as url, open_page() as page:
        for name, width, height in (("wide", 1280, None), ("narrow", 400, 1400)):
            await page.resize(width, dark=name == "narrow")
            await page.load(url)
            await page.wait_for("document.querySelector('#live.live')")
            await page.run("document.querySelector('details').open = true")
            path = directory / f"status-page-{name}.png"
            path.write_bytes(await page.take_screenshot(width, height))
        if page.problems:
            raise SystemExit("\n".join(page.problems))


if __name__ == "__main__":
    chosen = Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    chosen.mkdir(exist_ok=True)
    asyncio.run(main(chosen))
