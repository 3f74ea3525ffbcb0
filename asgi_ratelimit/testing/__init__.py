"""What a user's own tests need: a clock that stands still, a Discord of their own, and what every store must show."""

from asgi_ratelimit.clock import ManualClock
from asgi_ratelimit.testing.fake_discord import FakeBucket, FakeDiscord
from asgi_ratelimit.testing.store_contract import StoreContract

__all__ = ["FakeBucket", "FakeDiscord", "ManualClock", "StoreContract"]
