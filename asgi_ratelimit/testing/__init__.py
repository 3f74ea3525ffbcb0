"""For users' own tests: a clock that stands still, a fake Discord, and the tests that every store passes."""

from asgi_ratelimit.clock import ManualClock
from asgi_ratelimit.testing.fake_discord import FakeBucket, FakeDiscord
from asgi_ratelimit.testing.store_contract import StoreContract

__all__ = ["FakeBucket", "FakeDiscord", "ManualClock", "StoreContract"]
