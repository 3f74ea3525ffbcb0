"""A store in memory under several workers is warned about by each server, however it got their number."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.frameworks.workers_app import APP
from tests.support.asgi_servers import SECONDS, served
from tests.support.servers.server import wait_until

UVICORN = ("uvicorn", "--port", "{port}", APP)
GUNICORN = ("gunicorn", "--worker-class", "asgi", "--bind", "127.0.0.1:{port}", APP)
UNDER_UVICORN = ("gunicorn", "-k", "uvicorn_worker.UvicornWorker", "--bind", "127.0.0.1:{port}", APP)
HYPERCORN = ("hypercorn", "--bind", "127.0.0.1:{port}", APP)
GRANIAN = ("granian", "--interface", "asgi", "--port", "{port}", APP)
PROGRAM = "tests.frameworks.workers_app"
AT_ONCE = 3


@dataclass(frozen=True)
class Case:
    """A way to start a server, and a file that it reads."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    file: tuple[str, str] = ("unused", "")


SEVERAL = {
    "uvicorn's option": Case((*UVICORN, "--workers", "2")),
    "uvicorn's environment": Case(UVICORN, {"WEB_CONCURRENCY": "2"}),
    "uvicorn in a program": Case((PROGRAM, "uvicorn", "{port}")),
    "gunicorn's option": Case((*GUNICORN, "-w2")),
    "gunicorn's file": Case(GUNICORN, file=("gunicorn.conf.py", "workers = 2")),
    "gunicorn's arguments in the environment": Case(GUNICORN, {"GUNICORN_CMD_ARGS": "--workers=2"}),
    "gunicorn with uvicorn": Case((*UNDER_UVICORN, "-w", "2")),
    "hypercorn's option": Case((*HYPERCORN, "-w", "2")),
    "hypercorn's file": Case((*HYPERCORN, "-c", "hypercorn.toml"), file=("hypercorn.toml", "workers = 2")),
    "granian's option": Case((*GRANIAN, "--workers", "2")),
    "granian's environment": Case(GRANIAN, {"GRANIAN_WORKERS": "2"}),
    "granian in a program": Case((PROGRAM, "granian-fork", "{port}")),
    "granian in a program that spawns": Case((PROGRAM, "granian-spawn", "{port}")),
}
ELSEWHERE = {"WEB_CONCURRENCY": "2"}  # for a server that does not read it
ONE = {
    "uvicorn": Case(UVICORN),
    "uvicorn that reloads": Case((*UVICORN, "--reload"), ELSEWHERE),
    "gunicorn": Case((*GUNICORN, "-w1"), ELSEWHERE),
    "gunicorn with uvicorn": Case(UNDER_UVICORN),
    "hypercorn": Case(HYPERCORN, ELSEWHERE),
    "granian": Case(GRANIAN, ELSEWHERE),
}


def output_of(case: Case, place: Path) -> str:
    """Everything that the server prints until all of its workers have started, and at its end."""
    place.mkdir()
    place.joinpath(case.file[0]).write_text(case.file[1])
    environment = {"WEB_CONCURRENCY": "1", "GRANIAN_WORKERS": "1", **case.environment}
    with served(case.command, place / "log", environment=environment, cwd=place) as server:
        wait_until(lambda: server.answers or server.has_ended, f"{case.command} answers", seconds=SECONDS)
        assert not server.has_ended, server.output
        if case in SEVERAL.values():
            wait_until(lambda: "ARL105" in server.output, f"{case.command} warns", seconds=SECONDS)
    return server.output


@pytest.mark.parametrize("cases", [SEVERAL, ONE], ids=["several", "one"])
def test_several_workers_are_noticed_and_one_is_no_misconfiguration(cases: Mapping[str, Case], tmp_path: Path) -> None:
    with ThreadPoolExecutor(AT_ONCE) as threads:
        outputs = threads.map(output_of, cases.values(), [tmp_path / name for name in cases])
        warned = {name: "ARL105" in output for name, output in zip(cases, outputs, strict=True)}
    assert warned == dict.fromkeys(cases, cases is SEVERAL)
