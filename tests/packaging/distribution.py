"""The wheel and the sdist: how they are built, their contents and metadata."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

__all__ = ["Distribution", "build", "run"]


@dataclass(frozen=True, slots=True)
class Distribution:
    """The two files that are uploaded to a package index."""

    wheel: Path
    sdist: Path

    @property
    def in_wheel(self) -> set[str]:
        """The files of the wheel."""
        with ZipFile(self.wheel) as archive:
            return set(archive.namelist())

    @property
    def in_sdist(self) -> set[str]:
        """The files of the sdist, without its top folder."""
        with tarfile.open(self.sdist) as archive:
            return {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}

    def unpack(self, folder: Path) -> Path:
        """The top folder of the sdist, unpacked there."""
        with tarfile.open(self.sdist) as archive:
            archive.extractall(folder, filter="data")
        return next(folder.iterdir())

    @property
    def extras(self) -> list[str]:
        """The extras that the wheel offers."""
        name = next(name for name in self.in_wheel if name.endswith(".dist-info/METADATA"))
        with ZipFile(self.wheel) as archive:
            return Parser().parsestr(archive.read(name).decode("utf-8")).get_all("Provides-Extra", [])


def build(root: Path, folder: Path) -> Distribution:
    """The sdist, and from it the wheel, so that the sdist is complete as well."""
    run(sys.executable, "-m", "build", "--outdir", folder, root)
    distribution = Distribution(next(folder.glob("*.whl")), next(folder.glob("*.tar.gz")))
    run(sys.executable, "-m", "twine", "check", "--strict", distribution.wheel, distribution.sdist)
    return distribution


def run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    """Show the command and run it. CalledProcessError if it fails."""
    print("+", *command, flush=True)
    subprocess.run(command, cwd=cwd, env=env, check=True)
