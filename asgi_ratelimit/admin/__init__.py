"""The operator's page: the limiters of an app at work, and a key looked up, reset or blocked.

routes           router: the page, its files, its event stream and its verbs, all behind the user's own dependency
access           that dependency, and the check that no other site's page sends a changing request
feed             the state of the page, again and again
view             the state of the page as JSON
limiters         the limiters that the page acts on
static/          the page's style and scripts; uplot.js is uPlot, under its own licence
"""

try:
    import fastapi as _fastapi  # noqa: F401
    import jinja2 as _jinja2  # noqa: F401
    import sse_starlette as _sse_starlette  # noqa: F401
except ImportError as error:
    raise ImportError("asgi_ratelimit.admin needs more: pip install 'asgi-ratelimit-discord[admin]'") from error

from asgi_ratelimit.admin.routes import router

__all__ = ["router"]
