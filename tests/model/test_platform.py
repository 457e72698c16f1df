"""Rules WP: platforms, and which variants stand in for which."""

from __future__ import annotations

import platform as machine
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.errors import InvalidPlatformError
from asupplemented.model.platform import Platform, wanted_platforms


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", Platform("linux", "amd64")),
        ("linux/arm/v7", Platform("linux", "arm", "v7")),
        ("linux/arm64/v8", Platform("linux", "arm64", "v8")),
        ("Linux/X86_64", Platform("linux", "amd64")),
        ("linux/x86-64/v3", Platform("linux", "amd64", "v3")),
        ("linux/aarch64", Platform("linux", "arm64")),
        ("linux/armhf", Platform("linux", "arm", "v7")),
        ("linux/armel", Platform("linux", "arm", "v6")),
        ("linux/armhf/v6", Platform("linux", "arm", "v6")),
        ("linux/i686", Platform("linux", "386")),
        ("macos/arm64", Platform("darwin", "arm64")),
        ("linux/unheard-of/custom_1.2", Platform("linux", "unheard-of", "custom_1.2")),
    ],
)
def test_text_of_users_is_read(text: str, expected: Platform) -> None:
    parsed = Platform.parse(text)
    assert parsed == expected
    assert Platform.parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    "text",
    [
        *("", "linux", "/", "linux/", "/amd64", "linux//v7", "linux/arm/", "linux/arm/v7/x"),
        *("a b/c", "linux/amd64\n", "linux/ärm", "../etc", "linux/arm/../x", "linux/" + "a" * 65),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidPlatformError, match="os/architecture"):
        Platform.parse(text)


def test_a_hostile_text_is_not_repeated() -> None:
    with pytest.raises(InvalidPlatformError) as caught:
        Platform.parse("x/\x1b" * 500_000)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


def test_platforms_are_values() -> None:
    assert Platform("linux", "arm", "") == Platform("linux", "arm")
    assert hash(Platform("linux", "arm", "")) == hash(Platform("linux", "arm"))
    assert Platform("linux", "arm", "").variant is None
    assert str(Platform("linux", "arm", "v7", "1.0", ("x",))) == "linux/arm/v7"
    with pytest.raises(AttributeError):
        Platform("linux", "arm").variant = "v7"  # type: ignore[misc]  # it is frozen


CPU = "processor : 0\nmodel name\t: {model}\nCPU architecture: {architecture}\nflags: none\n"


@pytest.mark.parametrize(
    ("system", "name", "reported", "expected"),
    [
        pytest.param("Linux", "x86_64", None, "linux/amd64", id="WP-01 amd64"),
        pytest.param("Linux", "i686", None, "linux/386", id="WP-01 386"),
        pytest.param("Linux", "ppc64le", None, "linux/ppc64le", id="WP-01 ppc64le"),
        pytest.param("Linux", "s390x", None, "linux/s390x", id="WP-01 s390x"),
        pytest.param("Linux", "riscv64", None, "linux/riscv64", id="WP-01 riscv64"),
        pytest.param("Linux", "loongarch64", None, "linux/loong64", id="WP-01 loong64"),
        pytest.param("Darwin", "arm64", None, "darwin/arm64/v8", id="WP-04 darwin"),
        pytest.param("Windows", "AMD64", None, "windows/amd64", id="WP-01 WP-02 windows"),
        pytest.param("Windows", "ARM64", None, "windows/arm64/v8", id="WP-04 windows arm64"),
        pytest.param("Windows", "armv7", None, "windows/arm/v7", id="WP-04 windows arm"),
        pytest.param("FreeBSD", "aarch64", "8", "freebsd/arm64", id="WP-04 elsewhere unknown"),
        pytest.param("Linux", "aarch64", "8", "linux/arm64/v8", id="WP-04 8"),
        pytest.param("Linux", "aarch64", "AArch64", "linux/arm64/v8", id="WP-04 aarch64"),
        pytest.param("Linux", "armv7l", "7", "linux/arm/v7", id="WP-04 7"),
        pytest.param("Linux", "armv7l", "7M", "linux/arm/v7", id="WP-04 7m"),
        pytest.param("Linux", "armv7l", "?(12)", "linux/arm/v7", id="WP-04 ?(12)"),
        pytest.param("Linux", "armv7l", "?(17)", "linux/arm/v7", id="WP-04 ?(17)"),
        pytest.param("Linux", "armv7l", "?(18)", "linux/arm", id="WP-04 ?(18)"),
        pytest.param("Linux", "armv6l", "6TEJ", "linux/arm/v6", id="WP-04 6tej"),
        pytest.param("Linux", "armv5tel", "5TE", "linux/arm/v5", id="WP-04 5te"),
        pytest.param("Linux", "armv4tl", "4T", "linux/arm/v4", id="WP-04 4t"),
        pytest.param("Linux", "armv3", "3", "linux/arm/v3", id="WP-04 3"),
        pytest.param("Linux", "armv8l", "8", "linux/arm/v8", id="WP-04 32 bits on 64"),
        pytest.param("Linux", "armv7l", "", "linux/arm", id="WP-04 nothing reported"),
    ],
)
def test_the_host_is_described(system: str, name: str, reported: str | None, expected: str) -> None:
    cpuinfo = None if reported is None else CPU.format(model="A", architecture=reported)
    host = Platform.host(machine=name, system=system, cpuinfo=cpuinfo)
    assert str(host) == expected


def test_WP04_armv6_boards_that_report_7() -> None:
    cpuinfo = CPU.format(model="ARMv6-compatible processor rev 7 (v6l)", architecture="7")
    assert Platform.host(machine="armv6l", system="Linux", cpuinfo=cpuinfo).variant == "v6"
    assert Platform.host(machine="aarch64", system="Linux", cpuinfo=cpuinfo).variant == "v7"


def test_WP04_failure_to_read_is_no_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", refuse)
    assert Platform.host(machine="aarch64", system="Linux") == Platform("linux", "arm64")


def test_WP01_WP02_this_host() -> None:
    host = Platform.host()
    assert host.os == machine.system().lower()
    assert host == Platform.host(machine=machine.machine(), system=machine.system())


@pytest.mark.parametrize(
    ("architecture", "variant", "expected"),
    [
        pytest.param("amd64", None, [None], id="WP-08 amd64"),
        pytest.param("amd64", "v3", ["v3", None], id="WP-05 WP-06 WP-08 amd64 v3"),
        pytest.param("arm", "v6", ["v6", "v5", None], id="WP-08 arm v6"),
        pytest.param("arm", "v8", ["v8", "v7", "v6", "v5", None], id="WP-06 arm v8"),
        pytest.param("arm", "v5", ["v5", None], id="WP-06 arm v5"),
        pytest.param("arm", "v9", ["v9", None], id="WP-06 arm v9"),
        pytest.param("arm", None, [None, "v8", "v7", "v6", "v5"], id="WP-07 WP-08 arm"),
        pytest.param("arm64", None, [None, "v8"], id="WP-07 WP-08 arm64"),
        pytest.param("arm64", "v8", ["v8", None], id="WP-06 arm64 v8"),
        pytest.param("armel", "custom", ["custom", None], id="WP-06 WP-08 custom"),
        pytest.param("arm", "", [None, "v8", "v7", "v6", "v5"], id="WP-07 empty is none"),
    ],
)
def test_WP05_WP08_the_platforms_that_will_do(
    architecture: str, variant: str | None, expected: list[str | None]
) -> None:
    platform = Platform("linux", architecture, variant, "1.2", ("x",))
    wanted = wanted_platforms(platform)
    assert [each.variant for each in wanted] == expected
    go = platform.normalized().architecture
    assert wanted == tuple(Platform("linux", go, each) for each in expected)


def test_WP03_only_the_host_is_detected() -> None:
    assert wanted_platforms(None) == wanted_platforms(Platform.host())


@given(st.sampled_from(["arm", "arm64", "amd64"]), st.sampled_from([None, "v5", "v6", "v7", "v8"]))
def test_the_first_platform_wanted_is_the_one_asked_for(arch: str, variant: str | None) -> None:
    platform = Platform("linux", arch, variant)
    wanted = wanted_platforms(platform)
    assert wanted[0] == platform
    assert len(set(wanted)) == len(wanted)
