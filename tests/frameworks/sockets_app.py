"""The app of the framework that the environment names, behind the middleware, for real servers."""

from __future__ import annotations

import os

from asgi_ratelimit import ClientIP, RateLimitMiddleware
from tests.frameworks.apps import blacksheep_app, django_app, litestar_app, quart_app

BUILDERS = {"blacksheep": blacksheep_app, "django": django_app, "litestar": litestar_app, "quart": quart_app}

app = RateLimitMiddleware(
    BUILDERS[os.environ["FRAMEWORK"]]([]), limit="5/hour", key=ClientIP(trusted_proxies=("127.0.0.1",))
)
