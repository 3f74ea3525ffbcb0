"""DiscordHandler: log lines as messages, without a 429, a doubled line, a wait, or an exception in the program."""

from __future__ import annotations

import gc
import json
import logging
import logging.config
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from asgi_ratelimit.discord import DiscordHandler
from tests.support.pacing_server import PacingServer
from tests.support.programs import LATE
from tests.support.servers import wait_until

TOKEN = "W3bh00k-t0ken-that-n0b0dy-may-read-W3bh00k-t0ken-that-n0b0dy-may-r3ad"
HOOK = f"/webhooks/424242424242424242/{TOKEN}"


@pytest.fixture
def discord() -> Iterator[PacingServer]:
    with PacingServer(limit=5, period=0.5) as discord:
        yield discord


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """The root logger, at DEBUG: the handler sees all that is logged."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    root.setLevel(logging.DEBUG)
    yield root
    root.setLevel(level)
    root.handlers[:] = handlers


def handler_of(discord: PacingServer, **options: Any) -> DiscordHandler:
    return DiscordHandler(discord.url + HOOK, **{"interval": 0.01, "timeout": 20.0, **options})


def lines_of(discord: PacingServer) -> list[str]:
    return [line for content in discord.created for line in content.split("\n")]


# Messages


def test_lines_become_few_messages_that_ping_nobody(discord: PacingServer, log: logging.Logger) -> None:
    handler = handler_of(discord, interval=10)
    log.addHandler(handler)
    for number in range(100):
        log.warning("@everyone %d", number)
    handler.flush()
    handler.close()
    assert lines_of(discord) == [f"@everyone {number}" for number in range(100)]
    assert len(discord.bodies) == 1
    assert json.loads(discord.bodies[0])["allowed_mentions"] == {"parse": []}


def test_lines_arrive_after_the_interval_by_themselves(discord: PacingServer, log: logging.Logger) -> None:
    handler = handler_of(discord)
    log.addHandler(handler)
    log.error("one")
    wait_until(lambda: lines_of(discord) == ["one"], "it has arrived")
    handler.close()


def test_the_level_and_the_formatter_are_those_of_logging(discord: PacingServer, log: logging.Logger) -> None:
    handler = handler_of(discord, level="ERROR")
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    log.addHandler(handler)
    log.warning("no")
    try:
        raise KeyError("why")
    except KeyError:
        log.exception("yes")
    handler.close()
    assert lines_of(discord)[0] == "ERROR yes"
    assert lines_of(discord)[-1] == "KeyError: 'why'"


def test_a_configuration_file_can_name_it(discord: PacingServer, log: logging.Logger) -> None:
    handler = {"class": "asgi_ratelimit.discord.DiscordHandler", "webhook_url": discord.url + HOOK, "interval": 0.01}
    config = {"version": 1, "handlers": {"discord": handler}, "root": {"handlers": ["discord"]}}
    logging.config.dictConfig({**config, "disable_existing_loggers": False})
    log.error("one")
    log.handlers[0].close()
    assert lines_of(discord) == ["one"]


# Never in the way


def test_a_busy_program_is_not_held_up_and_draws_no_429(discord: PacingServer, log: logging.Logger) -> None:
    """Eight threads log 4 000 lines. Each fits into a message with others; the bucket holds 5 per half a second."""
    handler = handler_of(discord)
    log.addHandler(handler)

    def work(name: int) -> None:
        for number in range(500):
            log.info("thread %d line %d", name, number)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handler.flush()
    handler.close()
    assert set(discord.statuses) == {200}
    assert sorted(lines_of(discord)) == sorted(f"thread {name} line {n}" for name in range(8) for n in range(500))
    assert handler.dropped == 0


def test_it_does_not_wait_for_a_server_that_does_not_answer(discord: PacingServer, log: logging.Logger) -> None:
    discord.hold()
    handler = handler_of(discord, timeout=0.05)
    log.addHandler(handler)
    before = time.monotonic()
    for number in range(1_000):
        log.info("%d", number)
    discord.until_received(1)
    handler.flush()
    handler.close()
    assert time.monotonic() - before < LATE


def test_lines_without_room_are_dropped_and_counted(discord: PacingServer, log: logging.Logger) -> None:
    discord.hold()
    handler = handler_of(discord, capacity=10, interval=0)
    log.addHandler(handler)
    log.info("first")
    discord.until_received(1)
    for number in range(100):
        log.info("%d", number)
    assert handler.dropped == 90
    discord.go_on()
    handler.flush()
    log.info("last")
    handler.close()
    assert lines_of(discord) == ["first", *map(str, range(10)), "(90 log lines were dropped)", "last"]


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_lines_that_discord_does_not_take_are_counted_and_said_once(
    discord: PacingServer, log: logging.Logger, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    discord.status = status
    handler = handler_of(discord)
    log.addHandler(handler)
    for number in range(3):
        log.info("%d", number)
        handler.flush()
    assert handler.dropped == 3
    said = [record.getMessage() for record in caplog.records if "log lines do not arrive" in record.getMessage()]
    assert len(said) == 1
    assert str(status) in said[0]
    discord.status = 200
    handler.close()
    assert discord.created == ["(3 log lines were dropped)"]
    assert len(discord.bodies) == 4, "nothing is logged about itself into itself"


def test_a_server_that_is_not_there_does_no_harm(log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    handler = DiscordHandler(f"http://127.0.0.1:9{HOOK}", interval=0, timeout=0.1)
    log.addHandler(handler)
    log.error("one")
    handler.flush()
    handler.close()
    assert TOKEN not in caplog.text


def test_nothing_about_the_posting_is_posted(discord: PacingServer, log: logging.Logger) -> None:
    """httpx, httpcore and asgi_ratelimit log at DEBUG for each call; a second handler would post that as well."""
    handlers = [handler_of(discord) for _ in range(2)]
    for handler in handlers:
        log.addHandler(handler)
    log.info("one")
    for handler in 2 * handlers:
        handler.flush()
    for handler in handlers:
        handler.close()
    assert lines_of(discord) == ["one", "one"]


def test_a_record_that_cannot_be_formatted_raises_nothing(
    discord: PacingServer, log: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)  # as in production
    handler = handler_of(discord)
    log.handlers[:] = [handler]  # pytest's own raise
    log.info("%d", "no number")
    log.info("one")
    handler.close()
    assert lines_of(discord) == ["one"]


def test_a_handler_that_nobody_holds_any_more_ends_its_thread(discord: PacingServer) -> None:
    handler = handler_of(discord)
    handler.handle(logging.LogRecord("a", logging.INFO, "a.py", 1, "one", None, None))
    thread = handler._outbox._thread
    assert thread is not None
    del handler
    gc.collect()
    thread.join(20)
    assert not thread.is_alive()
    assert lines_of(discord) == ["one"]


# Options


BAD: dict[str, dict[str, Any]] = {
    "webhook_url must be the address of a webhook, e.g. .* not a NoneType": {"webhook_url": None},
    r"e.g. .* not discord.com/api/webhooks/1/\*\*\*": {"webhook_url": f"discord.com/api/webhooks/1/{TOKEN}"},
    "not a text of 69 characters": {"webhook_url": TOKEN},
    "not https://discord.com/api/webhooks/1": {"webhook_url": "https://discord.com/api/webhooks/1"},
    "interval must be seconds from 0, e.g. interval=1.0, not -1": {"interval": -1},
    "timeout must be seconds from 0, e.g. timeout=0.7, not '1'": {"timeout": "1"},
    "capacity must be a whole number of lines from 1, e.g. capacity=10_000, not 0": {"capacity": 0},
    "store must be a store": {"store": "redis://localhost"},
    "egress must name the address": {"egress": ""},
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_option_is_refused(message: str) -> None:
    options = {"webhook_url": f"https://discord.com/api{HOOK}", **BAD[message]}
    with pytest.raises(ValueError, match=message) as error:
        DiscordHandler(**options)
    assert TOKEN not in str(error.value)


@pytest.mark.parametrize("version", ["", "/api", "/api/v10"])
def test_every_form_of_a_webhooks_address_will_do(version: str) -> None:
    handler = DiscordHandler(f"https://canary.discord.com{version}{HOOK}?thread_id=1")
    assert TOKEN not in repr(handler)
    handler.close()
