"""The workflows call sessions that exist, on the Pythons and with the programs of the project.

``nox -s lint`` checks their syntax with the schema of GitHub. Nothing here can run them.
"""

from __future__ import annotations

import ast
import re
import tomllib
from typing import Any

import pytest
import yaml

from tests.modules import ROOT

WORKFLOWS: dict[str, dict[str, Any]] = {
    path.stem: yaml.safe_load(path.read_text("utf-8"))
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))
}
NOXFILE = ast.parse((ROOT / "noxfile.py").read_text("utf-8"))
SESSIONS = {
    node.name
    for node in NOXFILE.body
    if isinstance(node, ast.FunctionDef) and "nox.session" in map(ast.unparse, node.decorator_list)
} | {"tests"}


def find_constant(name: str) -> Any:
    """The value of a literal that the noxfile assigns."""
    [value] = [
        node.value
        for node in NOXFILE.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
    ]
    return ast.literal_eval(value)


def list_steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("workflow", WORKFLOWS.values(), ids=WORKFLOWS)
def test_every_session_that_a_workflow_calls_exists(workflow: dict[str, Any]) -> None:
    called: set[str] = set()
    for step in list_steps(workflow):
        for names in re.findall(r"nox -s ([^\n]+?)(?: --|$)", step.get("run", "")):
            called.update(name.partition("-")[0] for name in names.split() if "$" not in name)
    for job in workflow["jobs"].values():
        called.update(job.get("strategy", {}).get("matrix", {}).get("session", ()))
    assert called
    assert called <= SESSIONS


def test_a_workflow_runs_every_check() -> None:
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    without = {name for name in SESSIONS if not re.search(rf"\b{name}\b", text)}
    assert without == {"bench", "demo"}


def test_the_tests_run_on_every_python_of_the_classifiers() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    pythons = re.findall(r":: Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    matrix = WORKFLOWS["ci"]["jobs"]["tests"]["strategy"]["matrix"]["python"]
    assert [python for python in matrix if not python.endswith("t")] == pythons


def test_the_programs_of_interop_are_installed() -> None:
    [install] = [
        step["run"]
        for step in WORKFLOWS["ci"]["jobs"]["interop"]["steps"]
        if "apt-get" in step.get("run", "")
    ]
    assert set(find_constant("INTEROP_PROGRAMS").values()) <= set(install.split())


@pytest.mark.parametrize("workflow", WORKFLOWS.values(), ids=WORKFLOWS)
def test_only_the_job_that_publishes_may_do_more_than_read(workflow: dict[str, Any]) -> None:
    assert workflow["permissions"] == {"contents": "read"}
    more = {name for name, job in workflow["jobs"].items() if "permissions" in job}
    assert more <= {"publish"}
    checkouts = [x for x in list_steps(workflow) if "actions/checkout" in x.get("uses", "")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_a_release_is_published_without_a_password_and_with_attestations() -> None:
    publish = WORKFLOWS["release"]["jobs"]["publish"]
    assert publish["needs"] == "build"
    assert publish["permissions"] == {"attestations": "write", "id-token": "write"}
    [upload] = [step for step in publish["steps"] if "pypi-publish" in step["uses"]]
    assert upload["with"] == {"attestations": True}
    assert "secrets." not in (ROOT / ".github" / "workflows" / "release.yml").read_text("utf-8")
