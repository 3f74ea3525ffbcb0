"""The guide for contributors agrees with the Makefile, the workflows with the classifiers, and both are safe."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.version import Version

from tests.packaging.minimums import minimums

ROOT = Path(__file__).parent.parent
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = ROOT / ".github" / "workflows"


def workflow(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((WORKFLOWS / name).read_text(encoding="utf-8"))
    return loaded


def targets() -> set[str]:
    return set(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.MULTILINE)[0].split())


def test_every_make_target_is_explained() -> None:
    assert targets() <= set(re.findall(r"^\| `make ([\w-]+)`", CONTRIBUTING, flags=re.MULTILINE))


def test_every_python_of_the_classifiers_is_tested() -> None:
    versions = {classifier.rpartition(" ")[2] for classifier in PROJECT["classifiers"] if ":: 3." in classifier}
    assert set(workflow("ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]) == versions


def test_only_the_job_that_publishes_may_sign_in_to_the_package_index() -> None:
    publish = workflow("publish.yml")
    trusted = [name for name, job in publish["jobs"].items() if job.get("permissions") == {"id-token": "write"}]
    assert publish["permissions"] == {"contents": "read"}
    assert trusted == ["publish"]
    assert publish["jobs"]["publish"]["needs"] == "build"


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.yml")), ids=lambda path: path.name)
def test_a_workflow_may_only_read_and_pins_its_actions_by_commit(path: Path) -> None:
    loaded = workflow(path.name)
    assert loaded["permissions"] == {"contents": "read"}
    used = re.findall(r"uses: (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert used
    assert [each for each in used if re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each) is None] == []
    checkouts = [step for job in loaded["jobs"].values() for step in job["steps"] if "checkout" in step.get("uses", "")]
    assert all(step["with"] == {"persist-credentials": False} for step in checkouts)


def test_dependencies_are_audited_by_the_workflow_and_without_it_no_network_is_needed() -> None:
    audit = workflow("ci.yml")["jobs"]["audit"]
    assert audit["steps"][-1] == {"run": "make audit"}
    assert "audit" not in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


# The first versions without a known vulnerability when this was written.
SAFE = {"cryptography": "50", "jinja2": "3.1.6", "python-multipart": "0.0.31", "starlette": "1.3.1", "tqdm": "4.66.3"}


@pytest.mark.parametrize("package", SAFE)
def test_no_minimum_version_has_a_known_vulnerability(package: str) -> None:
    versions = [each.partition("==")[2] for each in minimums() if each.startswith(f"{package}==")]
    assert versions
    assert [version for version in versions if Version(version) < Version(SAFE[package])] == []


@pytest.mark.parametrize("name", ["bug.yml", "feature.yml"])
def test_an_issue_form_is_well_formed(name: str) -> None:
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / name).read_text(encoding="utf-8"))
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert form["name"]
    assert form["description"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)
