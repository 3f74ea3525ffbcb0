"""Libraries that the benchmark installs itself: each in a folder of its own, since some of them share a name."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.discord_harness import Candidate

__all__ = ["installed_clients"]

CLIENTS = Path(__file__).with_name("discord_clients")
PATIENCE = 120.0  # seconds for an installation
DISCORDJS = "@discordjs/rest@2.6"
# A column: the program, the module and the package, and what to install.
PYTHON = {
    "disnake": ("discordpy", "disnake", "disnake", ("disnake>=2.12,<2.13",)),
    "nextcord": ("discordpy", "nextcord", "nextcord", ("nextcord>=2.6,<4", "setuptools<81")),
    "py-cord": ("discordpy", "discord", "py-cord", ("py-cord>=2.8,<2.9",)),
    "interactions.py": (
        "interactionspy",
        "interactions",
        "discord-py-interactions",
        ("discord-py-interactions>=5.16,<6",),
    ),
}


@contextmanager
def installed_clients() -> Iterator[list[Candidate]]:
    """A column of each library, for as long as the block runs; with the reason where one cannot be installed."""
    with ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(len(PYTHON) + 1)]
        peers = [_python(name, folder) for name, folder in zip(PYTHON, folders, strict=False)]
        yield [*peers, _discordjs(folders[-1])]


def _python(name: str, folder: Path) -> Candidate:
    program, module, package, requirements = PYTHON[name]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(folder)]
    if not _runs([*pip, *requirements]):
        return Candidate(name, missing="left out, pip did not get it")
    # -S: nothing of our own environment, so that the packages called `discord` do not mix.
    command = [sys.executable, "-S", "-m", f"benchmarks.discord_clients.{program}"]
    options = {"package": package, "library": module}
    return Candidate(name, command, options, environment={"PYTHONPATH": str(folder)})


def _discordjs(folder: Path) -> Candidate:
    name, node, npm = "@discordjs/rest", shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return Candidate(name, missing="left out, no Node")
    quiet = ["--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--prefix", str(folder)]
    if not _runs([npm, "install", *quiet, DISCORDJS]):
        return Candidate(name, missing="left out, npm did not get it")
    return Candidate(name, [node, str(CLIENTS / "discordjs.mjs")], {"modules": str(folder)})


def _runs(command: Sequence[str]) -> bool:
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
    except (OSError, subprocess.SubprocessError):
        return False
    return True
