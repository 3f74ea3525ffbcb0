"""For users' own tests: a still clock, an off switch, a fake Discord, and the tests that every store passes."""

from asgi_ratelimit.clock import ManualClock
from asgi_ratelimit.testing.fake_discord import FakeBucket, FakeDiscord
from asgi_ratelimit.testing.store_contract import StoreContract
from asgi_ratelimit.testing.unlimited import unlimited

__all__ = ["FakeBucket", "FakeDiscord", "ManualClock", "StoreContract", "unlimited"]
