"""What importing does, each time in a fresh interpreter: little, and in any order."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.modules import EXTRAS, PACKAGE, ROOT, find_modules

HEAVY = ("aiohttp", "click", "rich", *sorted(EXTRAS))
"""Packages that wait until they are used."""

NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"

IMPORT_FACE = """
import json, sys, threading
import asupplemented
print(json.dumps({"modules": sorted(sys.modules), "threads": threading.active_count()}))
"""

# Each module is imported by a child of its own, beside a package that is nothing but its path:
# the real one would import half of itself first, in the order that happens to work. What others
# wrote is imported once, before.
IMPORT_ALONE = """
import importlib, json, os, sys, traceback, types
package, path, extras, *names = sys.argv[1:]
sys.modules[package] = types.ModuleType(package)
sys.modules[package].__path__ = [path]
others = "aiofiles aiohttp.web anyio msgspec pytest_asyncio queue rich.progress tomllib click"
for other in others.split():
    importlib.import_module(other)
for name in names:
    child = os.fork()
    if child == 0:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in json.loads(extras):
                traceback.print_exc()
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    os.waitpid(child, 0)
print(json.dumps(names))
"""


def run(program: str, *arguments: str) -> object:
    """Run a program in a fresh interpreter, which must not complain, and decode its output."""
    command = [sys.executable, "-W", "error", "-c", program, *arguments]
    # A module that is imported by many is compiled once.
    environment = {name: value for name, value in os.environ.items() if name != NO_BYTECODE}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_importing_the_face_imports_nothing_heavy() -> None:
    report = run(IMPORT_FACE)
    assert isinstance(report, dict), report
    assert [name for name in HEAVY if name in report["modules"]] == []
    served = tuple(f"{PACKAGE}.{name}" for name in ("catalog", "serve", "telemetry", "web"))
    assert not any(name.startswith(served) for name in report["modules"])
    assert report["threads"] == 1


def test_the_registry_for_ASGI_does_not_import_aiohttp() -> None:
    program = (
        "import json, sys, asupplemented.web.asgi; print(json.dumps('aiohttp' in sys.modules))"
    )
    assert run(program) is False


def test_every_module_can_be_imported_alone() -> None:
    names = [name for name in find_modules() if name not in {PACKAGE, f"{PACKAGE}.__main__"}]
    assert names
    extras = json.dumps(sorted(EXTRAS))
    assert run(IMPORT_ALONE, PACKAGE, str(ROOT / PACKAGE), extras, *names) == names
