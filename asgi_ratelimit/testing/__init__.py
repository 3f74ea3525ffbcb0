"""What a user's own tests need: a clock that stands still, a Discord of their own, and what every store must show."""

from asgi_ratelimit.clock import ManualClock
from asgi_ratelimit.testing.contract import StoreContract
from asgi_ratelimit.testing.fake_buckets import FakeBucket
from asgi_ratelimit.testing.fake_discord import FakeDiscord

__all__ = ["FakeBucket", "FakeDiscord", "ManualClock", "StoreContract"]
