"""Runs inside a fresh environment: checks where the package is, and which of its rooms can be imported there."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import asgi_ratelimit

WITHOUT_EXTRAS = ("asgi_ratelimit", "asgi_ratelimit.sync", "asgi_ratelimit.testing")


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
        if find_spec(f"asgi_ratelimit.{extra}") is not None:
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


if __name__ == "__main__":
    check_place()
    check_rooms(sys.argv[1], sys.argv[2:])
