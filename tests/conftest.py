"""What all tests share: a clock that stands still, and a store that goes by it."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.testing import ManualClock

pytest_plugins = ["tests.support.redis_fixtures"]

# Tests that start servers, browsers or processes, or take seconds: `make quick` leaves them out.
SLOW = (
    "tests/cli/examination/test_of_app.py",
    "tests/cli/examination/test_of_redis.py",
    "tests/cli/test_keys.py",
    "tests/cli/test_top.py",
    "tests/discord/permits/test_contract.py::TestSharedPermits",
    "tests/discord/permits/test_doubts.py",
    "tests/discord/permits/test_equality.py",
    "tests/discord/permits/test_shared.py",
    "tests/discord/permits/test_standing_still.py",
    "tests/discord/test_backfill.py",
    "tests/discord/test_cancellation.py::test_a_thousand_",
    "tests/discord/test_log_handler.py",
    "tests/discord/test_log_processes.py",
    "tests/discord/test_memory.py",
    "tests/discord/test_per_loop.py",
    "tests/discord/test_processes.py",
    "tests/discord/test_scenarios.py",
    "tests/discord/test_shared.py",
    "tests/discord/test_sync_transport.py",
    "tests/docs/how_to/test_language_models.py",
    "tests/docs/how_to/test_mcp_tools.py",
    "tests/docs/how_to/test_monthly_plan.py",
    "tests/docs/how_to/test_plans.py",
    "tests/docs/test_examples.py",
    "tests/docs/test_site.py",
    "tests/docs/test_types.py",
    "tests/example_app/",
    "tests/fastapi/test_tracing_tools.py",
    "tests/frameworks/test_servers.py",
    "tests/frameworks/test_slots.py",
    "tests/frameworks/test_sockets.py",
    "tests/frameworks/test_workers.py",
    "tests/inbound/test_escalate_workers.py",
    "tests/interactions/test_shared.py",
    "tests/load/test_connections.py",
    "tests/load/test_overload.py",
    "tests/load/test_served.py",
    "tests/login/test_workers.py",
    "tests/observe/test_known_load.py",
    "tests/observe/test_multiprocess.py",
    "tests/observe/test_outages.py",
    "tests/observe/test_sharing.py",
    "tests/real_clients/",
    "tests/redis/",
    "tests/support/",
    "tests/sync/test_processes.py",
    "tests/test_calendar.py::test_fifty_years_",
    "tests/test_escalation.py::test_processes_count_together_",
    "tests/test_store.py::test_a_flood_of_a_million_keys",
    "tests/test_errors.py::test_errors_come_out_of_a_process_pool",
    "tests/testing/test_fake_bots.py",
    "tests/testing/test_unlimited.py::test_the_conftest_of_the_guide",
)

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> MemoryStore:
    return MemoryStore(clock=clock)


@pytest.fixture
def no_test_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process does not know that it runs tests. The options of a test run are not taken for those of a server."""
    monkeypatch.delenv("PYTEST_VERSION")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """All that is there before the tests stays to the end. Looking for garbage in it takes a tenth of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the slow tests, and begin with their files. UsageError for a place that does not exist any more."""
    for place in SLOW:
        if not Path(config.rootpath, place.partition("::")[0]).exists():
            raise pytest.UsageError(f"tests/conftest.py lists {place} as slow, which does not exist")
    slow = [item for item in items if item.nodeid.startswith(SLOW)]
    for item in slow:
        item.add_marker(pytest.mark.slow)
    first = {item.path for item in slow}  # so that no process is left with a slow file at the end
    items.sort(key=lambda item: item.path not in first)
