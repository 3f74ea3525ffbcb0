"""Apps that a tool for tracing watches: prints a refusal with Discord's 429, and one with the app's own response."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

from fastapi import Depends, FastAPI, Request, Response
from fastapi.testclient import TestClient

from asgi_ratelimit import RateLimited
from asgi_ratelimit.fastapi import RateLimit


def site(owned: bool) -> FastAPI:
    app = FastAPI(dependencies=[Depends(RateLimit("1/hour"))])
    app.get("/")(lambda: "ok")
    if owned:

        @app.exception_handler(RateLimited)
        async def own(request: Request, error: RateLimited) -> Response:
            return Response(status_code=418)

    return app


def plain(owned: bool) -> FastAPI:
    return site(owned)


def sentry(owned: bool) -> FastAPI:
    import sentry_sdk

    sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", traces_sample_rate=1.0)
    return site(owned)


def sentry_after_the_app(owned: bool) -> FastAPI:
    import sentry_sdk

    app = site(owned)
    sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", traces_sample_rate=1.0)
    return app


def elastic_apm(owned: bool) -> FastAPI:
    from elasticapm.contrib.starlette import ElasticAPM, make_apm_client

    app = site(owned)
    app.add_middleware(ElasticAPM, client=make_apm_client({"SERVICE_NAME": "test", "DISABLE_SEND": True}))  # type: ignore[arg-type]
    return app


def opentelemetry(owned: bool) -> FastAPI:
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    app = site(owned)
    FastAPIInstrumentor.instrument_app(app)
    return app


TOOLS: dict[str, Callable[[bool], FastAPI]] = {
    tool.__name__: tool for tool in (plain, sentry, sentry_after_the_app, elastic_apm, opentelemetry)
}

if __name__ == "__main__":
    for owned in (False, True):
        client = TestClient(TOOLS[sys.argv[1]](owned))
        client.get("/")
        refused = client.get("/")
        sys.stdout.write(json.dumps([refused.status_code, refused.text, dict(refused.headers)]) + "\n")
