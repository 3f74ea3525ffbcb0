"""Fresh environments in which the wheel is installed, away from the tree."""

from __future__ import annotations

import os
import shutil
import sys
import venv
from pathlib import Path

from tests.packaging.distribution import Distribution, run

__all__ = ["check_extras", "run_tests"]

INSIDE = Path(__file__).with_name("inside.py")


def check_extras(distribution: Distribution, folder: Path) -> None:
    """With no extra and with each alone: its room can be imported, and other rooms name their extra."""
    extras = [extra for extra in distribution.extras if extra != "all"]
    for extra in ("", *extras):
        requirement = f"{distribution.wheel}[{extra}]" if extra else str(distribution.wheel)
        python = _environment(folder / f"with-{extra or 'nothing'}", requirement)
        run(python, "-I", INSIDE, extra, *extras)


def run_tests(distribution: Distribution, folder: Path) -> None:
    """The quick tests of the sdist, from which the package is taken away."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    tree = distribution.unpack(folder / "sdist")
    shutil.rmtree(tree / "asgi_ratelimit")
    python = _environment(folder / "with-all", f"{distribution.wheel}[all]", "--group", f"{tree}/pyproject.toml:test")
    run(python, "-m", "tests.packaging.inside", "all", cwd=tree, env=clean)
    run(python, "-m", "pytest", "-n", "2", "--dist", "loadfile", "-m", "not slow", cwd=tree, env=clean)


def _environment(folder: Path, *requirements: str) -> Path:
    """A fresh virtual environment with these requirements; its interpreter."""
    venv.create(folder)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", *requirements)
    return python
