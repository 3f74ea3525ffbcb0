"""The public names are a contract."""

from __future__ import annotations

import asgi_ratelimit
import asgi_ratelimit.admin
import asgi_ratelimit.discord
import asgi_ratelimit.fastapi
import asgi_ratelimit.load
import asgi_ratelimit.login
import asgi_ratelimit.login.fastapi
import asgi_ratelimit.observe
import asgi_ratelimit.sync
import asgi_ratelimit.testing


def test_the_front_page_offers_exactly_these_names() -> None:
    assert set(asgi_ratelimit.__all__) == {
        "RateLimitMiddleware",
        "ASGIApplication",
        "BucketKey",
        "HeaderStyle",
        "Key",
        "Measure",
        "Outage",
        "Rate",
        "Reason",
        "Scope",
        "State",
        "Buckets",
        "CostSource",
        "ExemptSource",
        "KeyFunction",
        "LimitSource",
        "LimitedHandler",
        "Charge",
        "Clock",
        "Concurrency",
        "Policy",
        "Limit",
        "LimitSpec",
        "Outcome",
        "Store",
        "Settlement",
        "StoreEvent",
        "bucket_key",
        "Limiter",
        "Decision",
        "Escalate",
        "Estimate",
        "Served",
        "Quota",
        "TokenBucket",
        "LeakyBucket",
        "SlidingWindow",
        "FixedWindow",
        "MemoryStore",
        "pace",
        "ClientIP",
        "NetworkFile",
        "by_ip",
        "by",
        "by_user",
        "by_user_or",
        "by_user_or_ip",
        "by_header",
        "RateLimitError",
        "RateLimitWarning",
        "RateLimited",
        "StoreUnavailable",
    }
    assert all(hasattr(asgi_ratelimit, name) for name in asgi_ratelimit.__all__)


def test_the_fastapi_door_offers_exactly_these_names() -> None:
    assert set(asgi_ratelimit.fastapi.__all__) == {
        "CallerLimits",
        "RateLimit",
        "Usage",
        "document_limits",
        "exempt",
        "rate_limit",
        "usage_router",
    }


def test_the_operators_page_offers_exactly_this_name() -> None:
    assert set(asgi_ratelimit.admin.__all__) == {"router"}


def test_the_guard_of_a_log_in_offers_exactly_these_names() -> None:
    assert set(asgi_ratelimit.login.__all__) == {"Attempt", "LoginGuard", "fold_account"}
    assert set(asgi_ratelimit.login.fastapi.__all__) == {"GuardedLogin"}


def test_the_way_out_offers_exactly_these_names() -> None:
    assert set(asgi_ratelimit.discord.__all__) == {
        "DiscordClient",
        "HttpxOptions",
        "DiscordTransport",
        "DiscordHandler",
        "DiscordProxy",
        "InteractionLimit",
        "RateLimitAware",
        "SyncDiscordClient",
        "SyncHttpxOptions",
        "DiscordError",
        "DiscordEvent",
        "DiscordRateLimited",
        "EventHook",
        "InvalidBudgetSpent",
        "TokenRejected",
        "WebhookGone",
        "Waiting",
        "MESSAGES",
        "REACTIONS",
        "EDITS",
        "DELETE",
        "BULK_DELETE",
    }


def test_seeing_offers_exactly_these_names() -> None:
    assert set(asgi_ratelimit.observe.__all__) == {
        "Event",
        "KeyCounts",
        "LimiterCounts",
        "LogObserver",
        "Observer",
        "Observers",
        "OpenTelemetryObserver",
        "Outage",
        "Period",
        "PrometheusObserver",
        "Snapshot",
        "Stats",
        "shared_snapshot",
    }


def test_shedding_offers_exactly_these_names() -> None:
    assert set(asgi_ratelimit.load.__all__) == {"LoadShedMiddleware", "PriorityFunction", "server_load"}


def test_the_synchronous_face_offers_exactly_this_name() -> None:
    assert set(asgi_ratelimit.sync.__all__) == {"SyncLimiter"}


def test_users_tests_get_exactly_these_names() -> None:
    assert set(asgi_ratelimit.testing.__all__) == {
        "FakeBucket",
        "FakeDiscord",
        "ManualClock",
        "StoreContract",
        "unlimited",
    }


def test_every_public_name_says_what_it_is() -> None:
    for module in (
        asgi_ratelimit,
        asgi_ratelimit.admin,
        asgi_ratelimit.discord,
        asgi_ratelimit.fastapi,
        asgi_ratelimit.load,
        asgi_ratelimit.login,
        asgi_ratelimit.login.fastapi,
        asgi_ratelimit.observe,
        asgi_ratelimit.sync,
        asgi_ratelimit.testing,
    ):
        for name in module.__all__:
            value = getattr(module, name)
            assert value.__doc__ or not isinstance(value, type), name
