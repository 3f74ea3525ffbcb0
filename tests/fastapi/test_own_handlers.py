"""An app's own handler for RateLimited finds all that its response needs."""

from __future__ import annotations

import pytest
from fastapi import Depends, FastAPI
from starlette.testclient import TestClient

from asgi_ratelimit import Limiter, MemoryStore, RateLimitMiddleware
from asgi_ratelimit.fastapi import RateLimit
from tests.docs.markdown import DOCS, blocks
from tests.docs.running import run

HANDLER = next(block for block in blocks(DOCS / "fastapi.md") if "exception_handler(RateLimited)" in block.source)


@pytest.mark.parametrize("with_middleware", [False, True])
def test_the_handler_of_the_guide_sends_retry_after(store: MemoryStore, with_middleware: bool) -> None:
    app: FastAPI = run(HANDLER)["app"]
    limiter = Limiter("1/minute", store=store)
    if with_middleware:
        app.add_middleware(RateLimitMiddleware, limit=None, store=store)

    @app.get("/dependency", dependencies=[Depends(RateLimit("1/minute", store=store))])
    def dependency() -> str:
        return "hello"

    @app.get("/limiter")
    async def by_hand() -> str:
        await limiter.acquire("ada", timeout=0)
        return "hello"

    client = TestClient(app)
    for path in ("/dependency", "/limiter"):
        assert client.get(path).status_code == 200
        refused = client.get(path)
        assert refused.status_code == 429
        assert "Try again in" in refused.text
        assert refused.headers.get_list("retry-after") == ["60"]
        assert refused.headers.get_list("x-ratelimit-limit") == ["1"]
        assert refused.headers.get_list("x-ratelimit-remaining") == ["0"]
        assert refused.headers["via"] == "1.1 asgi_ratelimit"
