"""The command as it is started: with its extra, and without."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("missing", ["rich", "typer", "uvicorn"])
def test_without_its_extra_it_says_what_to_install(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from asgi_ratelimit.cli import main; main()"
    ended = subprocess.run([sys.executable, "-c", code, "fake-discord"], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.endswith(f"The command needs {missing}: pip install 'asgi-ratelimit-discord[cli]'\n")


def test_its_room_needs_no_extra_to_be_imported() -> None:
    code = "import asgi_ratelimit.cli, sys; assert not {'typer', 'rich', 'uvicorn'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("arguments", "code", "says"), [(["--help"], 0, "fake-discord"), (["nothing"], 2, "nothing")])
def test_it_explains_itself(arguments: list[str], code: int, says: str) -> None:
    command = [sys.executable, "-m", "asgi_ratelimit.cli", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == code
    assert says in ended.stdout + ended.stderr
