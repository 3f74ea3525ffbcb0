"""Whether this process is one of several workers: the stack of a server that is known, else options."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from asgi_ratelimit.call_site import several_workers

SUPERVISOR = SimpleNamespace(workers=4, num_workers=4, config=SimpleNamespace(workers=4))


@pytest.fixture(autouse=True)
def no_options(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("WEB_CONCURRENCY", "GRANIAN_WORKERS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(sys, "argv", ["serve"])


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing, "parent_process", object)


def called_by(module: str, source: str, **local: object) -> bool:
    """The answer to a function of that module."""
    space: dict[str, Callable[..., bool]] = {"__name__": module, "ask": several_workers}  # type: ignore[dict-item]
    exec(source, space)
    return space["serve"](**local)


OF_SELF = "def serve(self): return ask()"
OF_CONFIG = "def serve(config): return ask()"


# The stack: the servers themselves are in tests/frameworks/test_workers.py


def test_the_number_of_gunicorns_workers_is_that_of_its_arbiter() -> None:
    assert called_by("gunicorn.arbiter", OF_SELF, self=SUPERVISOR)
    assert not called_by("gunicorn.arbiter", OF_SELF, self=SimpleNamespace(num_workers=1))


@pytest.mark.usefixtures("child")
@pytest.mark.parametrize("module", ["granian.server.common", "uvicorn.supervisors.multiprocess"])
def test_a_child_has_the_number_from_its_supervisor(module: str) -> None:
    assert called_by(module, OF_SELF, self=SUPERVISOR)


@pytest.mark.usefixtures("child")
@pytest.mark.parametrize("module", ["hypercorn.asyncio.run", "hypercorn.trio.run"])
def test_a_child_has_the_number_from_its_config(module: str) -> None:
    assert called_by(module, OF_CONFIG, config=SimpleNamespace(workers=2))
    assert not called_by(module, OF_CONFIG, config=SimpleNamespace(workers=1))


@pytest.mark.usefixtures("child")
def test_the_second_of_several_spawned_workers_of_granian_is_noticed() -> None:
    source = "def serve(worker_id): return ask()"
    assert [called_by("granian.server.mp", source, worker_id=number) for number in (1, 2)] == [False, True]


def test_workers_that_are_threads_of_one_process_share_its_memory() -> None:
    assert not called_by("granian.server.common", OF_SELF, self=SUPERVISOR)


def test_what_the_server_knows_is_worth_more_than_any_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_VERSION")
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    assert not called_by("gunicorn.arbiter", OF_SELF, self=SimpleNamespace(num_workers=1))
    assert called_by("gunicorn.arbiter", OF_SELF, self=None), "a version that is not known: options are all there is"


# Options


@pytest.mark.usefixtures("no_test_run")
@pytest.mark.parametrize("command", ["asgi app --workers 4", "asgi app --workers=4", "asgi -w 2 app"])
def test_options_of_a_server_that_is_not_known_are_believed(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setattr(sys, "argv", command.split())
    assert several_workers()


@pytest.mark.usefixtures("no_test_run")
@pytest.mark.parametrize("variable", ["WEB_CONCURRENCY", "GRANIAN_WORKERS"])
def test_a_number_in_the_environment_is_believed(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "4")
    assert several_workers()


@pytest.mark.usefixtures("no_test_run")
@pytest.mark.parametrize("command", ["asgi app", "asgi app --workers 1", "asgi app --workers", "x --w 4", "-w x"])
def test_no_number_or_one_worker_is_no_misconfiguration(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setattr(sys, "argv", command.split())
    assert not several_workers()


def test_the_options_of_a_test_run_are_not_those_of_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    monkeypatch.setattr(sys, "argv", ["pytest", "--workers", "4"])
    assert not several_workers()


def test_the_stack_of_another_thread_is_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its frames may be freed meanwhile. A test client calls the app from a thread while the main thread goes on."""

    def read() -> None:
        raise AssertionError

    monkeypatch.setattr(sys, "_current_frames", read)
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(several_workers).result() is False
