"""What a name stands for, and which names are refused before any source is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from asupplemented import Catalog, Digest, supplement
from asupplemented.catalog.names import Defaults, Names, at_digest, pin
from asupplemented.errors import (
    ConfigurationError,
    ImageNotFoundError,
    InvalidReferenceError,
    NameUnknownError,
)

if TYPE_CHECKING:
    from asupplemented import Reference, Session

DIGEST = Digest.of(b"content")
DEFAULTS = Defaults("fallback", "skip", "opaque")


def names(mapping: object, allow: Any = None) -> Names:
    return Names(mapping, allow, DEFAULTS)


async def found(
    mapping: object, name: str, registry: str | None = None, allow: Any = None
) -> list[str]:
    group = await names(mapping, allow).find(name, registry)
    return [str(member) for member in group.references]


MIRRORS = {
    "team/app": ["docker://registry.example/team/app", "oci:/srv/airgap/app:1.4"],
    "docker.io/*": "docker://mirror.example/{registry}/{name}",
    "docker.io/library/*": "docker://hub.example/{name}",
    "docker.io/library/special": "docker://special.example/one",
    "quay.io/*": "docker://quay.example:5000/{name}",
}


@pytest.mark.parametrize(
    ("name", "registry", "expected"),
    [
        ("team/app", None, "docker://registry.example/team/app:latest"),
        ("o/x/y", "quay.io", "docker://quay.example:5000/o/x/y:latest"),
        ("quay.io/o/x", None, "docker://quay.example:5000/o/x:latest"),
        pytest.param("o/x", "QUAY.IO:443", "docker://quay.example:5000/o/x:latest", id="SRV-15"),
        ("o/x", "docker.io", "docker://mirror.example/docker.io/o/x:latest"),
        ("o/x", "registry-1.docker.io", "docker://mirror.example/docker.io/o/x:latest"),
        ("o/x", "index.docker.io", "docker://mirror.example/docker.io/o/x:latest"),
        pytest.param("busybox", "docker.io", "docker://hub.example/library/busybox", id="SRV-16"),
        ("docker.io/busybox", None, "docker://hub.example/library/busybox:latest"),
        ("special", "docker.io", "docker://special.example/one:latest"),
    ],
)
async def test_a_name_stands_for_the_most_specific_key(
    name: str, registry: str | None, expected: str
) -> None:
    top, *_ = await found(MIRRORS, name, registry)
    assert top.removesuffix(":latest") == expected.removesuffix(":latest")


@pytest.mark.parametrize(
    ("name", "registry"),
    [
        ("team/other", None),
        pytest.param("team/app", "evil.example", id="SRV-15 a registry that no key names"),
        pytest.param("team/app", "docker.io.evil.example", id="a registry that begins like one"),
        ("library/busybox", None),
    ],
)
async def test_other_names_are_unknown(name: str, registry: str | None) -> None:
    with pytest.raises(NameUnknownError):
        await found(MIRRORS, name, registry)


@pytest.mark.parametrize(
    ("name", "registry"),
    [
        ("../etc/passwd", None),
        ("team//app", None),
        ("Team/app", None),
        ("team/app", "quay.io/o"),
        ("team/app", "user@quay.io"),
        ("team/app", "http://quay.io"),
        ("team/app", ""),
        ("team/%2e%2e", None),
        ("a" * 300, None),
        ("", None),
    ],
)
async def test_SRV15_malformed_names_are_refused_before_any_lookup(
    name: str, registry: str | None
) -> None:
    asked: list[str] = []

    async def look_up(name: str, registry: str | None) -> str:
        asked.append(f"{registry} {name}")
        return "docker://registry.example/team/app"

    with pytest.raises(InvalidReferenceError):
        await found(look_up, name, registry)
    assert asked == []


@pytest.mark.parametrize(
    ("allow", "allowed"),
    [
        (["team/*"], True),
        (["team/app"], True),
        (["team"], False),
        ([], False),
    ],
)
async def test_names_that_are_not_allowed_are_unknown(allow: list[str], *, allowed: bool) -> None:
    if allowed:
        assert await found(MIRRORS, "team/app", allow=allow)
        return
    with pytest.raises(NameUnknownError):
        await found(MIRRORS, "team/app", allow=allow)


@pytest.mark.parametrize(
    ("name", "registry", "expected"),
    [
        ("o/x", None, "docker://mirror.example/docker.io/o/x:latest"),
        ("busybox", None, "docker://hub.example/library/busybox:latest"),
        ("team/app", None, "docker://registry.example/team/app:latest"),
        ("o/x", "quay.io", "docker://quay.example:5000/o/x:latest"),
        ("o/x", "ghcr.io", None),
        ("ghcr.io/o/x", None, None),
    ],
)
async def test_SRV19_a_name_without_a_registry_is_in_the_default_one(
    name: str, registry: str | None, expected: str | None
) -> None:
    allow = ["docker.io/*", "quay.io/*", "team/*"]
    for default in ("docker.io", "index.docker.io"):
        catalog = Names(MIRRORS, allow, DEFAULTS, default)
        if expected is None:
            with pytest.raises(NameUnknownError):
                await catalog.find(name, registry)
        else:
            assert str((await catalog.find(name, registry)).references[0]) == expected
    with pytest.raises(ConfigurationError, match="default_registry='hub' is no registry"):
        Catalog(MIRRORS, default_registry="hub")


async def test_a_function_may_allow_names() -> None:
    def allow(name: str, registry: str | None) -> bool:
        return (name, registry) == ("team/app", None)

    assert await found(MIRRORS, "team/app", allow=allow)
    with pytest.raises(NameUnknownError):
        await found(MIRRORS, "o/x", "quay.io", allow=allow)


async def test_an_asynchronous_function_may_allow_names() -> None:
    async def allow(name: str, _registry: str | None) -> bool:
        return name == "o/x"

    assert await found(MIRRORS, "o/x", "quay.io", allow=allow)
    with pytest.raises(NameUnknownError):
        await found(MIRRORS, "o/y", "quay.io", allow=allow)


@pytest.mark.parametrize(
    ("name", "registry"),
    [("docker.io/busybox", None), ("busybox", "index.docker.io"), ("library/busybox", "DOCKER.IO")],
)
async def test_SRV16_functions_get_every_name_in_one_form(name: str, registry: str | None) -> None:
    asked: list[tuple[str, str | None]] = []

    def allow(name: str, registry: str | None) -> bool:
        asked.append((name, registry))
        return True

    async def look_up(name: str, registry: str | None) -> str:
        asked.append((name, registry))
        return "dir:/srv/a"

    await found(look_up, name, registry, allow=allow)
    assert asked == [("library/busybox", "docker.io")] * 2


async def test_a_function_gives_references() -> None:
    async def look_up(name: str, registry: str | None) -> Any:
        return None if name == "none" else [f"docker://{registry}/{name}", "dir:/srv/extra"]

    assert await found(look_up, "a/b", "r.example") == [
        "docker://r.example/a/b:latest",
        "dir:/srv/extra",
    ]
    with pytest.raises(NameUnknownError):
        await found(look_up, "none")


async def test_a_group_keeps_its_options_and_others_get_those_of_the_catalog() -> None:
    given = supplement("docker://r.example/a", missing="raise", unavailable="raise")
    mapping: dict[str, Reference | str] = {"given": given, "text": "docker://r.example/a"}
    assert await names(mapping).find("given", None) == given
    group = await names(mapping).find("text", None)
    assert (group.missing, group.unavailable) == ("fallback", "skip")


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"a/*": "docker://r.example/{tag}"}, "write {name} or {registry}"),
        ({"a/*": "docker://r.example/{name"}, "write {name} or {registry}"),
        pytest.param({"*": "docker://{registry}/{name}"}, "names none", id="SRV-15"),
        pytest.param({"*.io/*": "docker://{registry}/{name}"}, "names none", id="wild registry"),
        ({1: "docker://r.example/a"}, "keyed by text"),
        (["a"], "a mapping"),
    ],
)
def test_what_is_wrong_with_names_shows_at_once(mapping: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Catalog(mapping)


def test_a_text_that_is_no_reference_shows_at_once() -> None:
    with pytest.raises(InvalidReferenceError):
        Catalog({"a/*": "registry.example/{name}"})


def test_one_pattern_is_no_list_of_them() -> None:
    with pytest.raises(ConfigurationError, match="write"):
        Catalog({}, allow="team/*")


@pytest.mark.parametrize("options", [{"ttl": -1}, {"stale_if_error": -1}, {"max_open": 0}])
def test_numbers_out_of_range_are_refused(options: Any) -> None:
    with pytest.raises(ConfigurationError):
        Catalog({}, **options)


def test_members_with_the_default_tag_follow_the_client() -> None:
    group = supplement(
        "docker://r.example/a",
        "docker://m.example/a:latest",
        "docker://m.example/a:1",
        f"docker://m.example/a@{DIGEST}",
        "oci:/srv/a:2",
    )
    assert [str(each) for each in pin(group, "3").references] == [
        "docker://r.example/a:3",
        "docker://m.example/a:3",
        "docker://m.example/a:1",
        f"docker://m.example/a@{DIGEST}",
        "oci:/srv/a:2",
    ]


def test_a_digest_is_looked_for_in_the_group_and_then_without_each_top() -> None:
    group = supplement("docker://r.example/a", "oci:/srv/a:2", "docker://m.example/a")
    tops = [[str(each) for each in part.references] for part in at_digest(group, DIGEST)]
    top, layout = f"docker://r.example/a@{DIGEST}", "oci:/srv/a:2"
    mirror = f"docker://m.example/a@{DIGEST}"
    assert tops == [[top, layout, mirror], [layout, mirror], [mirror]]


@pytest.mark.parametrize(
    ("top", "tags"),
    [
        ("oci:/srv/a:1.4", {"1.4", "latest"}),
        ("oci:/srv/a:app:1.4", {"1.4", "latest"}),
        ("oci:/srv/a", {"latest"}),
        ("dir:/srv/a", {"latest"}),
        ("docker://r.example/a:1.4", {"1.4", "latest"}),
    ],
)
def test_a_fixed_top_has_its_own_tag_and_the_default(top: str, tags: set[str]) -> None:
    group = supplement(top)
    for tag in tags:
        assert pin(group, tag) == group
    with pytest.raises(ImageNotFoundError, match="is served with the tag"):
        pin(group, "other")


async def test_a_closed_catalog_refuses(session: Session) -> None:
    catalog = Catalog({"a": "dir:/srv/a"})
    await catalog.aclose()
    await catalog.aclose()
    with pytest.raises(RuntimeError, match="catalog was closed"):
        await catalog.open(session, "a")
