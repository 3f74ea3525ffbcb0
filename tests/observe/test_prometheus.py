"""PrometheusObserver: what a scrape reads, and what it never shows."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from asgi_ratelimit import Limiter, MemoryStore, RateLimitMiddleware, by_header
from asgi_ratelimit.observe import Event, PrometheusObserver
from asgi_ratelimit.observe.metrics import KINDS, METRICS
from asgi_ratelimit.testing import ManualClock
from tests.observe.scrapes import Scraped

# Dashboards and alerts of users are written against these.
CONTRACT = {
    "ratelimit_decisions_total": ("limiter", "outcome", "answered_by"),
    "ratelimit_near_total": ("limiter",),
    "ratelimit_shed_total": ("limiter", "priority"),
    "ratelimit_wait_seconds": ("limiter",),
    "ratelimit_unsettled_total": ("limiter", "cause"),
    "ratelimit_escalations_total": ("limiter", "enforced"),
    "ratelimit_failed_logins_total": ("limiter",),
    "ratelimit_in_flight": ("limiter",),
    "ratelimit_store_up": ("store",),
    "ratelimit_store_missed_total": ("store",),
    "discord_requests_total": ("route", "status"),
    "discord_wait_seconds": ("cause",),
    "discord_refused_total": ("scope",),
    "discord_invalid_requests_total": (),
    "discord_retries_total": ("status",),
    "discord_stops_total": ("cause",),
    "discord_rejected_total": ("credential",),
}
ROUTE = "POST /channels/{channel_id}/messages"
NODE = "redis://localhost:6379/0"

Samples = dict[str, list[tuple[dict[str, str], float]]]


def decisions(outcome: str, answered_by: str = "store", limiter: str = "app") -> Samples:
    return {"ratelimit_decisions_total": [({"limiter": limiter, "outcome": outcome, "answered_by": answered_by}, 1.0)]}


def histogram(name: str, labels: dict[str, str], seconds: float) -> Samples:
    return {f"{name}_count": [(labels, 1.0)], f"{name}_sum": [(labels, seconds)]}


EFFECTS: list[tuple[Event, Samples]] = [
    (Event("allowed", "app"), decisions("allowed")),
    (Event("limited", "app", answered_by="cache"), decisions("limited", "cache")),
    (Event("blocked", "app", answered_by="fallback"), decisions("blocked", "fallback")),
    (Event("shadow", "/items/{id}"), decisions("shadow", limiter="/items/{id}")),
    (Event("exempt", "app"), decisions("exempt")),
    (Event("unavailable", "app"), decisions("unavailable")),
    (
        Event("shed", "load", priority=2),
        {**decisions("shed", limiter="load"), "ratelimit_shed_total": [({"limiter": "load", "priority": "2"}, 1.0)]},
    ),
    (Event("gone", "app"), decisions("gone")),
    (Event("near", "app"), {"ratelimit_near_total": [({"limiter": "app"}, 1.0)]}),
    (Event("waited", "app", seconds=0.5), histogram("ratelimit_wait_seconds", {"limiter": "app"}, 0.5)),
    (Event("waited", "discord", seconds=2.0), histogram("ratelimit_wait_seconds", {"limiter": "discord"}, 2.0)),
    (
        Event("waited", "discord", seconds=2.0, route=ROUTE, cause="bucket"),
        histogram("discord_wait_seconds", {"cause": "bucket"}, 2.0),
    ),
    (Event("owed", "app"), {"ratelimit_unsettled_total": [({"limiter": "app", "cause": "owed"}, 1.0)]}),
    (Event("lost", "app"), {"ratelimit_unsettled_total": [({"limiter": "app", "cause": "lost"}, 1.0)]}),
    (
        Event("failed", "login:account"),
        {"ratelimit_failed_logins_total": [({"limiter": "login:account"}, 1.0)]},
    ),
    (
        Event("escalated", "app", seconds=60.0),
        {"ratelimit_escalations_total": [({"limiter": "app", "enforced": "true"}, 1.0)]},
    ),
    (
        Event("escalated", "app", seconds=60.0, cause="shadow"),
        {"ratelimit_escalations_total": [({"limiter": "app", "enforced": "false"}, 1.0)]},
    ),
    (Event("down", node=NODE), {}),
    (Event("missed", node=NODE, checks=3), {"ratelimit_store_missed_total": [({"store": NODE}, 3.0)]}),
    (
        Event("recovered", node=NODE, checks=7),
        {
            "ratelimit_store_up": [({"store": NODE}, 1.0)],
            "ratelimit_store_missed_total": [({"store": NODE}, 7.0)],
        },
    ),
    (
        Event("response", "discord", route=ROUTE, status=200),
        {"discord_requests_total": [({"route": ROUTE, "status": "200"}, 1.0)]},
    ),
    (Event("refused", "discord", scope="shared"), {"discord_refused_total": [({"scope": "shared"}, 1.0)]}),
    (Event("invalid", "discord", checks=41), {"discord_invalid_requests_total": [({}, 1.0)]}),
    (Event("retry", "discord", status=502), {"discord_retries_total": [({"status": "502"}, 1.0)]}),
    (Event("retry", "discord"), {"discord_retries_total": [({"status": "none"}, 1.0)]}),
    (Event("stopped", "discord"), {"discord_stops_total": [({"cause": "stopped"}, 1.0)]}),
    (Event("banned", "discord"), {"discord_stops_total": [({"cause": "banned"}, 1.0)]}),
    (Event("token", "discord"), {"discord_rejected_total": [({"credential": "token"}, 1.0)]}),
    (Event("webhook", "discord"), {"discord_rejected_total": [({"credential": "webhook"}, 1.0)]}),
]


@pytest.fixture
def scraped() -> Scraped:
    return Scraped()


def test_the_names_and_labels_are_those_of_the_contract() -> None:
    assert {metric.name: metric.labels for metric in METRICS} == CONTRACT
    registry = CollectorRegistry()
    PrometheusObserver(registry)
    families = {family.name for family in registry.collect()}
    assert families == {name.removesuffix("_total") for name in CONTRACT}


@pytest.mark.parametrize(("event", "samples"), EFFECTS, ids=lambda value: getattr(value, "kind", ""))
def test_each_event_changes_these_series_and_no_other(event: Event, samples: Samples, scraped: Scraped) -> None:
    scraped.observer(event)
    assert scraped.changed() == samples
    for _ in range(2):  # what is counted once is counted the same way again
        scraped.observer(event)
    counters = [name for name in samples if name.endswith(("_total", "_count"))]
    assert {name: scraped.changed()[name][0][1] for name in counters} == {
        name: 3 * samples[name][0][1] for name in counters
    }


def test_every_kind_that_it_asks_for_has_an_effect() -> None:
    assert {event.kind for event, _ in EFFECTS} == KINDS == PrometheusObserver.kinds


def test_other_kinds_change_nothing(scraped: Scraped) -> None:
    before = scraped.text
    scraped.observer(Event("full", node=NODE))
    scraped.observer(Event("wait", "discord", route=ROUTE, cause="bucket", seconds=3.0))
    assert scraped.text == before


def test_a_store_goes_down_and_comes_back(scraped: Scraped) -> None:
    observer = scraped.observer
    assert scraped.value("ratelimit_store_up", store=NODE) is None
    observer.introduce(NODE)
    assert scraped.value("ratelimit_store_up", store=NODE) == 1.0
    observer(Event("down", node=NODE))
    observer.introduce(NODE)  # a second store on that server does not mend it
    assert scraped.value("ratelimit_store_up", store=NODE) == 0.0
    observer(Event("recovered", node=NODE))
    assert scraped.value("ratelimit_store_up", store=NODE) == 1.0


def test_counters_of_alerts_are_there_before_their_first_event(scraped: Scraped) -> None:
    for scope in ("user", "global", "shared", "cloudflare"):
        assert scraped.value("discord_refused_total", scope=scope) == 0.0
    for cause in ("stopped", "banned"):
        assert scraped.value("discord_stops_total", cause=cause) == 0.0
    for credential in ("token", "webhook"):
        assert scraped.value("discord_rejected_total", credential=credential) == 0.0
    assert scraped.value("discord_invalid_requests_total") == 0.0


def app_with(store: MemoryStore) -> TestClient:
    async def hello(request: Request) -> PlainTextResponse:
        return PlainTextResponse("hello")

    def limit(conn: HTTPConnection) -> str:
        return "5/hour"

    app = Starlette(routes=[Route("/", hello), Route("/health", hello)])
    app.add_middleware(RateLimitMiddleware, limit=limit, key=by_header("x-user"), store=store, exempt=("/health",))
    return TestClient(app)


def test_an_app_counts_each_request_once(clock: ManualClock, scraped: Scraped) -> None:
    client = app_with(MemoryStore(clock=clock, observers=[scraped.observer]))
    for user in ("ada", "bob"):
        for _ in range(8):
            client.get("/", headers={"x-user": user})
    client.get("/health")
    counted = scraped.changed()["ratelimit_decisions_total"]
    assert {labels["outcome"]: value for labels, value in counted} == {"allowed": 10, "limited": 6, "exempt": 1}
    assert scraped.value("ratelimit_near_total", limiter="app") == 4.0  # two of five are 80 %
    assert "ada" not in scraped.text


@pytest.mark.anyio
async def test_a_wait_is_observed_with_its_seconds(clock: ManualClock, scraped: Scraped) -> None:
    limiter = Limiter("1/s", store=MemoryStore(clock=clock, observers=[scraped.observer]), name="slow")
    await limiter.acquire("ada")
    waiting = asyncio.create_task(limiter.acquire("ada"))
    while not limiter.has_line("ada"):
        await asyncio.sleep(0)
    clock.advance(1)
    await waiting
    assert scraped.value("ratelimit_wait_seconds_bucket", limiter="slow", le="0.5") == 0.0
    assert scraped.value("ratelimit_wait_seconds_bucket", limiter="slow", le="1.0") == 1.0
    assert scraped.value("ratelimit_wait_seconds_sum", limiter="slow") == 1.0


@given(
    kind=st.sampled_from(sorted(KINDS)),
    key=st.text("0123456789abcdef", min_size=8),
    fields=st.fixed_dictionaries({"status": st.integers(0, 599), "seconds": st.floats(0, 1e6)}),
)
def test_no_key_is_ever_shown(kind: Any, key: str, fields: dict[str, Any]) -> None:
    scraped = Scraped()
    scraped.observer(Event(kind, "app", key=f"user:{key}", secret=b"pepper", **fields))
    assert f"user:{key}" not in scraped.text
    assert "pepper" not in scraped.text


def test_the_number_of_label_values_is_bounded(scraped: Scraped) -> None:
    for number in range(600):
        for _ in range(2):
            scraped.observer(Event("allowed", f"limiter {number}"))
        scraped.observer(Event("response", "discord", route=f"GET /{number}", status=200))
    counted = scraped.changed()
    assert len(counted["ratelimit_decisions_total"]) == len(counted["discord_requests_total"]) == 501
    others = scraped.value("ratelimit_decisions_total", limiter="(others)", outcome="allowed", answered_by="store")
    assert others == 200.0
    assert scraped.value("discord_requests_total", route="(others)", status="200") == 100.0
    scraped.observer(Event("allowed", "limiter 0"))
    first = scraped.value("ratelimit_decisions_total", limiter="limiter 0", outcome="allowed", answered_by="store")
    assert first == 3.0


@pytest.mark.parametrize("name", ["caf\udce9", "caf\n"])
def test_a_name_that_is_no_unicode_or_has_lines_is_found_by_every_query(scraped: Scraped, name: str) -> None:
    scraped.observer(Event("allowed", name))
    assert 'limiter="caf\ufffd"' in scraped.text


def test_threads_lose_no_count(scraped: Scraped) -> None:
    def count(number: int) -> None:
        for _ in range(1_000):
            scraped.observer(Event("allowed", "app"))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(count, range(8)))
    counted = scraped.value("ratelimit_decisions_total", limiter="app", outcome="allowed", answered_by="store")
    assert counted == 8_000.0


def test_a_second_observer_of_a_registry_is_refused_and_says_what_to_do() -> None:
    registry = CollectorRegistry()
    PrometheusObserver(registry)
    with pytest.raises(ValueError, match="give all stores the same PrometheusObserver"):
        PrometheusObserver(registry)


def test_a_registry_with_one_of_the_names_gets_none_of_the_others() -> None:
    registry = CollectorRegistry()
    Counter("discord_stops", "Stops", registry=registry)
    with pytest.raises(ValueError, match="metrics of these names"):
        PrometheusObserver(registry)
    assert [family.name for family in registry.collect()] == ["discord_stops"]


@pytest.mark.parametrize("registry", ["default", 0, CollectorRegistry])
def test_what_is_no_registry_is_refused(registry: Any) -> None:
    with pytest.raises(ValueError, match=r"registry must be prometheus_client's, e\.g\. CollectorRegistry\(\), not"):
        PrometheusObserver(registry)


def test_the_default_is_the_registry_of_prometheus_client() -> None:
    code = (
        "from prometheus_client import REGISTRY; from asgi_ratelimit.observe import PrometheusObserver;"
        "PrometheusObserver(); print('ratelimit_decisions' in {family.name for family in REGISTRY.collect()})"
    )
    assert run(code) == "True"


PACKAGES = {"PrometheusObserver": "prometheus", "OpenTelemetryObserver": "opentelemetry"}


@pytest.mark.parametrize("name", PACKAGES)
def test_without_its_package_it_says_in_one_sentence_what_to_install(name: str) -> None:
    block = "import sys; sys.modules.update(dict.fromkeys(['prometheus_client', 'opentelemetry']));"
    last = run(f"{block} import asgi_ratelimit.observe as observe; observe.Event; observe.{name}")
    package = {"prometheus": "prometheus_client", "opentelemetry": "opentelemetry-api"}[PACKAGES[name]]
    assert last == f"ImportError: {name} needs {package}: pip install 'asgi-ratelimit-discord[{PACKAGES[name]}]'"


def test_the_room_has_no_other_name() -> None:
    assert run("import asgi_ratelimit.observe as o; o.Missing").endswith("has no attribute 'Missing'")


def run(code: str) -> str:
    """The last line that a program prints."""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return (ended.stdout + ended.stderr).strip().splitlines()[-1]
