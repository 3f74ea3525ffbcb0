"""The command in this process, with what it writes and its exit code."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from typer.testing import CliRunner

from asgi_ratelimit.cli.app import app

__all__ = ["Ended", "asgi_ratelimit"]


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command has written."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def text(self) -> str:
        """All of it, with each run of blanks as one: however it was wrapped."""
        return " ".join(f"{self.out} {self.err}".split())


def asgi_ratelimit(*arguments: str, **environment: str) -> Ended:
    """Run it. An exception that it does not expect is raised."""
    empty = {"RATELIMIT_REDIS_URL": None, "RATELIMIT_SECRET": None, "FORCE_COLOR": None}
    result = CliRunner().invoke(app, arguments, env={**empty, "COLUMNS": "80", **environment})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ended(result.exit_code, result.stdout, result.stderr)
