"""The guide for contributors agrees with the Makefile, and the workflows with the classifiers."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

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


@pytest.mark.parametrize("name", ["bug.yml", "feature.yml"])
def test_an_issue_form_is_well_formed(name: str) -> None:
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / name).read_text(encoding="utf-8"))
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert form["name"]
    assert form["description"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)
