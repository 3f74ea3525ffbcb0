"""The app of the framework that the environment names, limited, for real servers."""

from __future__ import annotations

import os
from typing import Any

from litestar import Litestar
from litestar.middleware import DefineMiddleware

from asgi_ratelimit import ClientIP, RateLimitMiddleware
from tests.frameworks.apps import LITESTAR_ROUTES, blacksheep_app, django_app, litestar_app, quart_app

BUILDERS = {"blacksheep": blacksheep_app, "django": django_app, "litestar": litestar_app, "quart": quart_app}
KEY = ClientIP(trusted_proxies=("127.0.0.1",))


def limited(framework: str) -> Any:
    if framework == "litestar's own middleware":
        middleware: Any = DefineMiddleware(RateLimitMiddleware, limit="5/hour", key=KEY)  # type: ignore[arg-type]
        return Litestar(LITESTAR_ROUTES, middleware=[middleware], logging_config=None)
    return RateLimitMiddleware(BUILDERS[framework]([]), limit="5/hour", key=KEY)


app = limited(os.environ["FRAMEWORK"])
