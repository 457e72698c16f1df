"""The sessions of nox: ``nox -l`` lists them, ``nox -s NAME`` runs one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox
from nox.command import CommandFailed

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)
DEFAULT_PYTHON = PYTHONS[0]

INTEROP_PROGRAMS = {
    "buildah": "buildah",
    "busybox": "busybox-static",
    "chromium": "chromium",
    "containerd": "containerd",
    "ctr": "containerd",
    "curl": "curl",
    "docker": "docker.io",
    "docker-registry": "docker-registry",
    "dockerd": "docker.io",
    "htpasswd": "apache2-utils",
    "nginx": "nginx",
    "podman": "podman",
    "redis-server": "redis-server",
    "skopeo": "skopeo",
    "umoci": "umoci",
}
"""Program -> the Debian package that has it."""

SCHEMAS = {
    "citation-file-format": "CITATION.cff",
    "dependabot": ".github/dependabot.yml",
    "github-issue-config": ".github/ISSUE_TEMPLATE/config.yml",
    "github-issue-forms": ".github/ISSUE_TEMPLATE/[!c]*.yml",
    "github-workflows": ".github/workflows/*.yml",
}
"""Schema that comes with check-jsonschema -> the files that it describes."""

KEEP_BYTECODE = {"PYTHONDONTWRITEBYTECODE": None}
"""Tests start many interpreters, each of which would compile the whole package again."""

nox.needs_version = ">=2026.4"
nox.options.sessions = ("tests", "lint", "typing")
nox.options.reuse_venv = "yes"
nox.options.download_python = "never"
# nox would fail on a missing interpreter where CI is set; it is skipped, with a note, everywhere
nox.options.error_on_missing_interpreters = False


def reveal_interpreters() -> None:
    """Show nox the interpreters that pyenv keeps.

    On PATH pyenv has one shim for each version that is installed, and all but those of the
    active versions fail. nox tries every ``pythonX.Y`` on PATH until one runs, so the real
    ones go to the end.
    """
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    hidden = [str(path) for python in PYTHONS for path in sorted(versions.glob(f"{python}.*/bin"))]
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), *hidden])


reveal_interpreters()


def install(session: nox.Session, *groups: str, extras: str = "") -> None:
    """Install the project, editable, with `extras` and the named dependency groups."""
    project = f".[{extras}]" if extras else "."
    session.install("--editable", project, *nox.project.dependency_groups(PYPROJECT, *groups))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests; what is marked slow runs on the default Python only."""
    install(session, "tests", extras="cli,otel,prometheus,redis,s3")
    chosen = () if session.python == DEFAULT_PYTHON else ("-m", "not slow")
    arguments = ("--ignore=tests/interop", "--numprocesses=auto", *chosen, *session.posargs)
    try:
        session.run("python", "-m", "pytest", *arguments, env=KEEP_BYTECODE)
    except CommandFailed:
        if "CI" not in os.environ:
            raise
        session.warn("the tests that failed run once more; each has a race, or has found one")
        failed = ("--last-failed", "--last-failed-no-failures=none")
        session.run("python", "-m", "pytest", *arguments, *failed, env=KEEP_BYTECODE)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format, and the files that other programs read."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "lint"))
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")
    for schema, pattern in SCHEMAS.items():
        files = sorted(str(path) for path in Path().glob(pattern))
        session.run("check-jsonschema", "--builtin-schema", f"vendor.{schema}", *files)


@nox.session
def typing(session: nox.Session) -> None:
    """Check types with mypy and pyright, both strict."""
    install(session, "typing", extras="all")
    session.run("mypy")
    session.run("pyright")


@nox.session
def interop(session: nox.Session) -> None:
    """Talk to real programs: registries, what pulls from them, nginx, Redis, S3, Chromium."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])  # nginx is there
    missing = {
        package for name, package in INTEROP_PROGRAMS.items() if not shutil.which(name, path=path)
    }
    if missing:
        command = "apt-get install --yes --no-install-recommends"
        session.error(f"programs are missing; run: {command} {' '.join(sorted(missing))}")
    install(session, "interop", extras="otel,prometheus,redis,s3,serve")
    arguments = ("-m", "interop", "tests/interop", *session.posargs)
    session.run("python", "-m", "pytest", *arguments, env=KEEP_BYTECODE)


@nox.session
def demo(session: nox.Session) -> None:
    """Group three images, show the plan, copy the whole, verify it. Needs no network."""
    install(session, extras="cli")
    session.run("python", "docs/demo.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Compare with peers, in less than 5 minutes; after ``--``: groups, ``--full``, ``report``."""
    install(session, "bench", extras="cli")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site into docs/_build/html; a broken link or docstring fails."""
    install(session, "docs", extras="cli")
    strict = ("--fail-on-warning", "--keep-going", "--fresh-env")
    session.run("python", "-m", "sphinx", *strict, "docs", "docs/_build/html", *session.posargs)


@nox.session
def package(session: nox.Session) -> None:
    """Build sdist and wheel into dist, check them, and run the wheel in a new environment."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "package"))
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build")
    built = sorted(str(path) for path in Path("dist").iterdir())
    session.run("twine", "check", "--strict", *built)
    [wheel] = [path for path in built if path.endswith(".whl")]
    fresh = Path(session.create_tmp(), "fresh")
    session.run("python", "-m", "venv", "--clear", str(fresh))
    python = str((fresh / "bin" / "python").absolute())
    session.run(python, "-m", "pip", "install", "--quiet", f"{wheel}[cli]", external=True)
    # isolated, so that the package is imported from the wheel, not from the clone
    session.run(python, "-I", "-m", "asupplemented", "--version", external=True)


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure which branches of the package its tests take; the report fails below the floor."""
    install(session, "coverage", extras="cli,otel,prometheus,redis,s3")
    chosen = ("--ignore=tests/interop", "-m", "not slow", "--numprocesses=auto")
    # measuring makes every test slower, those that come near the usual limit too
    measured = ("--timeout=600", "--cov", "--cov-report=term", "--cov-report=html:coverage-html")
    arguments = (*chosen, *measured, *session.posargs)
    session.run("python", "-m", "pytest", *arguments, env=KEEP_BYTECODE)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Give each parser many variants of the documents in tests/corpus."""
    install(session, "tests", extras="cli")
    arguments = ("--numprocesses=auto", "tests/test_parsers.py", *session.posargs)
    environment = {**KEEP_BYTECODE, "HYPOTHESIS_PROFILE": "thorough", "CI": None}
    session.run("python", "-m", "pytest", *arguments, env=environment)


@nox.session
def mutants(session: nox.Session) -> None:
    """Break each rule of the resolver and of failover in turn; the tests must notice every one."""
    install(session, "tests")
    session.run("python", "-m", "tests.mutants", *session.posargs)
