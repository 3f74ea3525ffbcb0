"""The code of README and documentation passes a strict type check, all of it at once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.markdown import PAGES, ROOT, Block, blocks

CONFIGURATION = Path(__file__).with_name("mypy.ini")


def check(folder: Path, sources: dict[str, str]) -> str:
    """The complaints about these modules."""
    package = folder / "documented"
    for part in (package, *(package / name for name in ("ours", "theirs", "frameworks"))):
        part.mkdir()
        (part / "__init__.py").touch()
    for name, source in sources.items():
        (package / f"{name}.py").write_text(source, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", CONFIGURATION, "--cache-dir", ROOT / ".mypy_cache", package],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr, done.stderr
    return "" if done.returncode == 0 else done.stdout.replace(f"{package}/", "")


def name_of(block: Block) -> str:
    if re.search(r"^from (a2wsgi|blacksheep|django|litestar|quart)\b", block.source, re.MULTILINE):
        return f"frameworks/{block.module}"
    return f"{'ours' if block.title in ('', 'asgi_ratelimit') else 'theirs'}/{block.module}"


def padded(block: Block) -> str:
    """On the lines that it has in its page."""
    return "\n" * block.line + block.source


def test_the_code_of_the_texts_is_typed(tmp_path: Path) -> None:
    sources = {name_of(block): padded(block) for page in PAGES for block in blocks(page)}
    if complaints := check(tmp_path, sources):
        pytest.fail(complaints)


def test_the_check_finds_a_misspelt_option(tmp_path: Path) -> None:
    source = "from asgi_ratelimit import Limiter\nLimiter('5/5s', nmae='x')\n"
    assert "nmae" in check(tmp_path, {"wrong": source})
