"""Pyright, with its own rules and no download: basedpyright brings the engine and node along."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asgi_ratelimit

__all__ = ["Finding", "check"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that pyright reports; lines count from 1."""

    file: Path
    line: int
    rule: str
    message: str


def check(folder: Path, files: Iterable[Path], *, mode: str = "strict") -> list[Finding]:
    """Type-check the files as a user's project in `folder`, which gets the settings."""
    settings = {"typeCheckingMode": mode, "include": [str(file) for file in files]}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    # The package that these tests import, found the way that an installed one is: the rules of py.typed hold.
    environment = {**os.environ, "PYTHONPATH": str(Path(asgi_ratelimit.__file__).parent.parent)}
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(folder)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):  # 1: it has findings
        raise RuntimeError(f"pyright failed with code {done.returncode}: {done.stdout}{done.stderr}")
    return [_finding(record) for record in json.loads(done.stdout)["generalDiagnostics"]]


def _finding(record: dict[str, Any]) -> Finding:
    line = record["range"]["start"]["line"] + 1
    return Finding(Path(record["file"]), line, record.get("rule", ""), record["message"])
