"""RateLimitAware sees the slash commands of discord.py's relatives, each installed in a folder of its own."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.real_clients.libraries import LIBRARIES, program_of

PROGRAM = Path(__file__).parent / "programs" / "aware.py"
FOLDERS = str(Path(__file__).parents[2]), sysconfig.get_path("purelib")
LONGEST = 60.0  # seconds after which a bot is taken to hang

HOOKS = {
    "disnake": ["slash_command_error", "user_command_error", "message_command_error"],
    "nextcord": ["application_command_error"],
    "py-cord": ["application_command_error"],
}


@pytest.mark.parametrize("name", HOOKS)
def test_a_429_in_an_application_command_is_counted_and_every_other_error_reaches_the_parent(name: str) -> None:
    program, hooks = program_of(name), HOOKS[name]
    command = (*program.command[:2], str(PROGRAM), LIBRARIES[name].module, *FOLDERS)
    done = subprocess.run(command, env=dict(program.environment), capture_output=True, text=True, timeout=LONGEST)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "counted": {"command play": len(hooks)},
        "seen": ["command play"] * len(hooks),
        "kept": [f"{hook}: 403" for hook in hooks],
    }
