"""`by`: limits of one list that have a key of their own."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from starlette.requests import Request

from asgi_ratelimit import (
    ClientIP,
    Concurrency,
    Limiter,
    MemoryStore,
    RateLimitMiddleware,
    TokenBucket,
    by,
    by_header,
    by_ip,
    by_user,
    by_user_or,
)
from asgi_ratelimit.observe import Event
from asgi_ratelimit.testing import ManualClock
from tests.support.asgi import Response, get

pytestmark = pytest.mark.anyio
