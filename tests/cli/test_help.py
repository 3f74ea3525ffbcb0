"""The help texts: each fits into 80 columns, and each example in them and in the docs is one that the command takes."""

from __future__ import annotations

import re
import shlex

import click
import pytest
from typer.main import get_command

from asgi_ratelimit.cli.app import app
from tests.docs.markdown import PAGES
from tests.support.command import asgi_ratelimit

COMMANDS = ("doctor", "show", "reset", "block", "top", "discord-proxy", "fake-discord")
IN_DOCS = [
    pytest.param(line, id=f"{page.name} {line}"[:60])
    for page in PAGES
    for line in re.findall(r"^(?:\$ )?(asgi-ratelimit .*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
]
IN_HELP = [
    example.strip()
    for command in getattr(get_command(app), "commands").values()  # noqa: B009 - of a click.Group
    for example in (command.epilog or "").split("\n\n")[1:]
]


def parse(line: str) -> click.Context:
    """What the command makes of a line, without running it."""
    group = get_command(app)
    _, name, *arguments = shlex.split(line, comments=True)
    command = getattr(group, "commands")[name]  # noqa: B009
    context: click.Context = command.make_context(name, arguments)
    return context


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself_in_80_columns(command: str) -> None:
    ended = asgi_ratelimit(command, "--help")
    assert ended.code == 0
    assert max(map(len, ended.out.splitlines())) <= 80
    if command in COMMANDS[:5]:
        assert f"asgi-ratelimit {command} " in ended.out
        assert "--json" in ended.out


@pytest.mark.parametrize("line", IN_HELP)
def test_an_example_of_a_help_text_is_understood(line: str) -> None:
    assert parse(line).params


@pytest.mark.parametrize("line", IN_DOCS)
def test_an_example_of_the_docs_is_understood(line: str) -> None:
    assert parse(line).command.name


def test_there_are_examples() -> None:
    assert len(IN_HELP) >= 10
    assert len(IN_DOCS) >= 2


def test_all_commands_are_listed() -> None:
    shown = asgi_ratelimit("--help").out
    assert all(f"│ {command} " in shown for command in COMMANDS)
