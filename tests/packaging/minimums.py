"""Prints the oldest versions of all requirements of users, one a line, so that an audit can look them up."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["minimums"]

ROOT = Path(__file__).parent.parent.parent
_REQUIREMENT = re.compile(r"([\w.-]+)>=([\w.]+)")


def minimums(root: Path = ROOT) -> list[str]:
    """The requirements of the package, its extras and the example app: `starlette==1.3.1`."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    project = settings["project"]
    wanted = [*project["dependencies"], *settings["dependency-groups"]["example"]]
    for extra in project["optional-dependencies"].values():
        wanted += extra
    return sorted(set(_pinned(wanted)))


def _pinned(requirements: Iterable[str]) -> Iterable[str]:
    for requirement in requirements:
        if (match := _REQUIREMENT.match(requirement)) is not None:
            yield f"{match[1]}=={match[2]}"


if __name__ == "__main__":
    print("\n".join(minimums()))
