"""The same registries.conf means the same to skopeo, which tells in its log what it tries.

Every host is beyond a proxy that nobody runs, so nothing is ever reached.
"""

from __future__ import annotations

import random
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest

from asupplemented.errors import ConfigurationError
from asupplemented.hostconfig.paths import ConfigurationPaths
from asupplemented.hostconfig.registries import Registries
from asupplemented.model.name import ImageName
from tests.interop.programs import SECONDS, find

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.interop.programs import Home

DIGEST: Final = f"sha256:{'ab' * 32}"
NOBODY: Final = "http://127.0.0.1:9"

HOSTS: Final = (
    *("a.invalid", "b.a.invalid", "c.b.a.invalid", "b.a.invalid:5000", "d.invalid", "docker.io"),
    *("localhost:1", "x.a.invalid.a.invalid"),
)
PREFIXES: Final = (
    *HOSTS,
    *("*.a.invalid", "*.invalid", "*.b.a.invalid", "*.io", "*.a.invalid:5000", "*.a.invalid/x"),
    *("a.invalid/x", "b.a.invalid/x/y", "docker.io/library", "a.invalid/x:t", "invalid"),
)
LOCATIONS: Final = (
    *HOSTS,
    *HOSTS,
    *(
        "m.invalid/z",
        "m.invalid:1/z/w",
        "docker.io/q",
        "q",
        "a.invalid/UP",
        "https://h.invalid",
        "",
    ),
)
NAMES: Final = (
    *("a.invalid/x:t", "a.invalid/x/y:t", "b.a.invalid/x:t", "b.a.invalid:5000/x/y", "busybox"),
    *(f"c.b.a.invalid/x@{DIGEST}", f"a.invalid/x@{DIGEST}", "docker.io/a/b:c", "localhost:1/x"),
    *("d.invalid/a.invalid/x", "x.a.invalid.a.invalid/x"),
)
CASES: Final = 150

_TRIED: Final = re.compile(r'Trying to access \\"(.*?)\\""')
_BLOCKED: Final = re.compile(r'Accessing \\"(.*?)\\" failed: registry .* is blocked')


@dataclass(frozen=True)
class Answer:
    """What was tried, in order; nothing, if the configuration was refused."""

    tried: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    insecure: tuple[str, ...] = ()


def write_tables(dice: random.Random) -> Iterator[str]:
    """The lines of a registries.conf, some of which make no sense."""
    for _ in range(dice.randint(1, 4)):
        yield "[[registry]]"
        yield from maybe(dice, 0.8, f'prefix = "{dice.choice(PREFIXES)}"')
        yield from maybe(dice, 0.9, f'location = "{dice.choice(LOCATIONS)}"')
        yield from maybe(dice, 0.2, "insecure = true")
        yield from maybe(dice, 0.1, "blocked = true")
        yield from maybe(dice, 0.2, "mirror-by-digest-only = true")
        yield from maybe(dice, 0.03, 'pull-from-mirror = "all"')
        for _ in range(dice.randint(0, 2)):
            yield "[[registry.mirror]]"
            yield from maybe(dice, 0.97, f'location = "{dice.choice(LOCATIONS)}"')
            yield from maybe(dice, 0.3, "insecure = true")
            use = dice.choice(("all", "digest-only", "tag-only", "sometimes"))
            yield from maybe(dice, 0.25, f'pull-from-mirror = "{use}"')


def maybe(dice: random.Random, chance: float, line: str) -> tuple[str, ...]:
    return (line,) if dice.random() < chance else ()


def ask_skopeo(conf: Path, name: str, home: Home) -> Answer:
    done = subprocess.run(
        [find("skopeo"), "--debug", "--registries-conf", conf, "inspect", f"docker://{name}"],
        env={**home.environment, "HTTPS_PROXY": NOBODY, "HTTP_PROXY": NOBODY},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    tried = tuple(_TRIED.findall(done.stderr))
    parts = _TRIED.split(done.stderr)[2::2]
    insecure = tuple(name for name, part in zip(tried, parts, strict=True) if "GET http://" in part)
    return Answer(tried, tuple(_BLOCKED.findall(done.stderr)), insecure)


async def ask_us(conf: Path, name: str) -> Answer:
    try:
        registries = await Registries.load(ConfigurationPaths(registries=conf))
        locations = registries.locations(ImageName.parse(name))
    except ConfigurationError:
        return Answer()
    return Answer(
        tuple(str(each.name) for each in locations),
        tuple(str(each.name) for each in locations if each.blocked),
        tuple(str(each.name) for each in locations if each.insecure and not each.blocked),
    )


async def test_CONF_candidates_are_those_that_skopeo_tries(tmp_path: Path, home: Home) -> None:
    conf = tmp_path / "registries.conf"
    lengths: set[int] = set()
    for seed in range(CASES):
        dice = random.Random(seed)
        conf.write_text("\n".join(write_tables(dice)))
        name = dice.choice(NAMES)
        answer = await ask_us(conf, name)
        assert answer == ask_skopeo(conf, name, home), f"{name} with\n{conf.read_text()}"
        lengths.add(len(answer.tried))
    assert {0, 1, 2} <= lengths


@pytest.mark.parametrize(
    ("name", "tried"),
    [
        ("a.invalid/x:t", ("m.invalid:5000/x:t", "t.invalid/z/x:t", "b.invalid/c/x:t")),
        (f"a.invalid/x@{DIGEST}", (f"m.invalid:5000/x@{DIGEST}", f"b.invalid/c/x@{DIGEST}")),
        ("s.w.invalid/x:t", ("m.invalid/x:t", "s.w.invalid/x:t")),
    ],
)
async def test_CONF12_CONF13_mirrors_come_first(
    tmp_path: Path, home: Home, name: str, tried: tuple[str, ...]
) -> None:
    conf = tmp_path / "registries.conf"
    conf.write_text("""
        [[registry]]
        prefix = "a.invalid"
        location = "b.invalid/c"
        [[registry.mirror]]
        location = "m.invalid:5000"
        [[registry.mirror]]
        location = "t.invalid/z"
        pull-from-mirror = "tag-only"
        [[registry]]
        prefix = "*.w.invalid"
        [[registry.mirror]]
        location = "m.invalid"
    """)
    assert (await ask_us(conf, name)).tried == ask_skopeo(conf, name, home).tried == tried
