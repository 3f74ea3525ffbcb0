"""Runs inside a fresh environment: checks where the package is, and which of its rooms can be imported there."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import asgi_ratelimit

WITHOUT_EXTRAS = ("asgi_ratelimit", "asgi_ratelimit.sync", "asgi_ratelimit.testing")
COMMAND = "cli"  # which says itself what it needs, when it is started


def check_place() -> None:
    """RuntimeError if the package is not the installed one."""
    place, site = Path(asgi_ratelimit.__file__).resolve(), Path(sysconfig.get_path("purelib")).resolve()
    if site not in place.parents:
        raise RuntimeError(f"{place} is not in {site}")
    print(f"under test: {place.parent}, {asgi_ratelimit.__version__}", flush=True)


def check_rooms(installed: str, extras: Sequence[str]) -> None:
    """Import the rooms named after extras, of which one is installed, or none if `installed` is ""."""
    for module in WITHOUT_EXTRAS:
        import_module(module)
    for extra in extras:
        if extra == COMMAND:
            _check_command(installed)
        elif find_spec(f"asgi_ratelimit.{extra}") is not None:
            _check_room(extra, installed)


def _check_room(extra: str, installed: str) -> None:
    try:
        import_module(f"asgi_ratelimit.{extra}")
    except ImportError as error:
        if extra == installed or f"asgi-ratelimit-discord[{extra}]" not in str(error):
            raise
        print(f"  {extra}: {error}")
    else:
        if not installed:
            raise RuntimeError(f"asgi_ratelimit.{extra} does not need its extra")
        print(f"  {extra}: imported")


def _check_command(installed: str) -> None:
    command = Path(sysconfig.get_path("scripts"), "asgi-ratelimit")
    ended = subprocess.run([command, "--help"], capture_output=True, text=True, check=False)
    works = ended.returncode == 0
    if not works and (installed == COMMAND or f"asgi-ratelimit-discord[{COMMAND}]" not in ended.stderr):
        raise RuntimeError(f"{command} ended with {ended.returncode}: {ended.stderr}")
    print(f"  {COMMAND}: {'works' if works else ended.stderr.strip()}")


if __name__ == "__main__":
    check_place()
    check_rooms(sys.argv[1], sys.argv[2:])
