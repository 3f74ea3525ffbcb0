"""Discord's libraries as they are installed: each in a folder of its own, since some of them share a name.

The folders are made once, in the virtual environment of the tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

__all__ = ["LIBRARIES", "Library", "Program", "installed_node_library", "program_of"]

PROGRAMS = Path(__file__).parent / "programs"
PLACE = Path(sys.prefix, "discord-libraries")
PATIENCE = 300.0  # seconds for an installation


@dataclass(frozen=True)
class Library:
    """What is imported, and what has to be installed for it. Nothing: it is in the environment of the tests."""

    module: str
    requirements: tuple[str, ...] = ()


@dataclass(frozen=True)
class Program:
    """A command, and the variables that it needs besides."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


LIBRARIES = {
    "discord.py": Library("discord"),
    "hikari": Library("hikari"),
    "disnake": Library("disnake", ("disnake>=2.12,<2.13",)),
    "nextcord": Library("nextcord", ("nextcord>=2.6,<4", "setuptools<81")),
    "py-cord": Library("discord", ("py-cord>=2.8,<2.9",)),
    "interactions.py": Library("interactions", ("discord-py-interactions>=5.16,<6",)),
    "@discordjs/rest": Library("@discordjs/rest", ("@discordjs/rest@2.6",)),
}


def program_of(name: str) -> Program:
    """The program of a library, which is installed first. Skips the test if that is impossible here, or fails it."""
    library = LIBRARIES[name]
    if not library.requirements:
        return Program((sys.executable, str(PROGRAMS / "bots.py"), library.module))
    folder, trouble = _installed(name)
    if trouble:
        pytest.fail(trouble) if os.environ.get("REQUIRE_ALL") == "1" else pytest.skip(trouble)
    if library.module.startswith("@"):
        return Program((_node(), str(PROGRAMS / "bots.mjs"), str(folder)))
    # -S: nothing of the tests' own environment, so that the two packages called `discord` do not mix.
    command = sys.executable, "-S", str(PROGRAMS / "bots.py"), library.module
    return Program(command, {"PYTHONPATH": str(folder)})


def installed_node_library(name: str) -> tuple[str, Path]:
    """Node, and the folder of a library for it. Skips the test if that is impossible here, or fails it."""
    program = program_of(name)
    return program.command[0], Path(program.command[2])


@cache
def _installed(name: str) -> tuple[Path, str]:
    """The folder of a library, and why there is none."""
    requirements = LIBRARIES[name].requirements
    version = ".".join(map(str, sys.version_info[:2]))
    folder = PLACE / "".join(c if c.isalnum() or c in ".-" else "_" for c in "-".join((*requirements, version)))
    if folder.is_dir():
        return folder, ""
    try:
        PLACE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=PLACE) as unfinished:
            made = Path(unfinished, "made")
            subprocess.run(_command(requirements, made), check=True, capture_output=True, timeout=PATIENCE)
            made.rename(folder)
    except (OSError, subprocess.SubprocessError) as error:
        if not folder.is_dir():  # else another run of the tests was faster
            output = (getattr(error, "stderr", None) or b"").decode(errors="replace")
            return folder, f"{name} cannot be installed: {error} {output[-400:]}"
    return folder, ""


def _command(requirements: tuple[str, ...], folder: Path) -> list[str]:
    if not requirements[0].startswith("@"):
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-warn-conflicts"]
        return [*pip, "--target", str(folder), *requirements]
    folder.mkdir()
    npm = [shutil.which("npm") or "npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
    return [*npm, "--prefix", str(folder), *requirements]


def _node() -> str:
    return shutil.which("node") or "node"
