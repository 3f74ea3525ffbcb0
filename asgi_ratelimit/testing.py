"""What a user's own tests need."""

from __future__ import annotations

from asgi_ratelimit.clock import ManualClock

__all__ = ["ManualClock"]
