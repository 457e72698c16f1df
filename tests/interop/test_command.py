"""The command line over real places, and beside skopeo."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.busybox import HELD, LOST, PLATFORMS
from tests.interop.programs import SECONDS
from tests.interop.servers import run_registry

if TYPE_CHECKING:
    from tests.interop.busybox import Family
    from tests.interop.places import Places
    from tests.interop.programs import Skopeo


def command(*arguments: str, code: int = 0) -> bytes:
    """Run the command line, plain http allowed; returns what it printed on stdout."""
    done = subprocess.run(
        [sys.executable, "-m", "asupplemented", *arguments, "--no-tls-verify"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == code, done.stderr.decode()
    if code:
        assert done.stdout == b""
        assert done.stderr
    return done.stdout


def test_resolve_tells_who_fills_the_holes_of_a_registry(
    family: Family, holey: str, supplements: tuple[str, str]
) -> None:
    plan: dict[str, Any] = json.loads(command("resolve", holey, *supplements, "--json"))
    assert plan["members"] == [holey, *supplements]
    assert plan["top"]["digest"] == family.digest
    digests = [family.digest, *(family.images[platform].digest for platform in (HELD, *LOST))]
    assert plan["sources"] == dict(zip(digests, (0, 0, 1, 2), strict=True))
    assert plan["blobs"].keys() == family.contents().blobs.keys()


def test_a_hole_that_nobody_fills_is_exit_code_3(holey: str) -> None:
    command("resolve", holey, code=3)


def test_copy_writes_what_skopeo_reads(
    family: Family, holey: str, supplements: tuple[str, str], places: Places, skopeo: Skopeo
) -> None:
    ours = places.find("oci", "ours")
    printed = command("copy", holey, *supplements, "--to", ours)
    assert printed.decode().split() == [family.digest]
    assert skopeo.read_raw(ours) == family.index
    for platform in PLATFORMS:
        told = skopeo.inspect(ours, platform=platform)
        assert told["Labels"] == {"org.example.platform": platform}


def test_manifest_blob_and_inspect_print_what_skopeo_prints(
    family: Family, places: Places, skopeo: Skopeo
) -> None:
    place, output = places.find("docker"), places.directory / "config.json"
    skopeo.copy(family.reference(), place, "--all")
    assert command("manifest", place) == skopeo.read_raw(place)
    image = family.images["linux/arm64"]
    assert command("manifest", place, "--instance", image.digest) == image.raw
    config = next(iter(image.blobs))
    command("blob", place, "--digest", config, "--output", str(output))
    assert output.read_bytes() == skopeo.read_config(place, platform="linux/arm64")
    ours = json.loads(command("inspect", place, "--platform", "linux/arm64"))
    told = skopeo.inspect(place, platform="linux/arm64")
    common = ("Created", "DockerVersion", "Labels", "Architecture", "Os", "Layers", "Env")
    assert {key: ours[key] for key in common} == {key: told[key] for key in common}


@pytest.mark.parametrize("damage", ["rotten", "short", "long"])
def test_a_blob_that_rotted_in_a_registry_is_exit_code_4(
    family: Family, places: Places, skopeo: Skopeo, damage: str
) -> None:
    with run_registry(places.directory / "rotting") as rotting:
        place = rotting.reference("app:1")
        skopeo.copy(family.reference("linux/amd64"), place)
        layer = [*family.images["linux/amd64"].blobs][-1]
        file = rotting.find_blob(layer)
        whole = file.read_bytes()
        damaged = {"rotten": b"?" + whole[1:], "short": whole[:-1], "long": whole + b"?"}
        file.write_bytes(damaged[damage])
        ours = places.find("oci", "ours")
        command("copy", place, "--to", ours, code=4)
        command("manifest", ours, code=3)  # nothing is visible
        file.write_bytes(whole)
        command("copy", place, "--to", ours)
        assert skopeo.read_raw(ours) == family.images["linux/amd64"].raw
