"""The FastAPI door: a dependency that limits the routes it stands on.

dependency   RateLimit and rate_limit; wrapped: the same limit as a middleware; exemption: exempt
refusals     the exceptions of a refusal, and the responses to them
resources    the values of path parameters that have buckets of their own
usage        usage_router: the rest of each limit, for the caller
bucket_names the names of the buckets of limits that have none
openapi      the 429 in the OpenAPI document; responses: that 429
"""

try:
    import fastapi as _fastapi  # noqa: F401
except ImportError as error:
    raise ImportError("asgi_ratelimit.fastapi needs FastAPI: pip install 'asgi-ratelimit-discord[fastapi]'") from error

from asgi_ratelimit.fastapi.dependency import RateLimit, rate_limit
from asgi_ratelimit.fastapi.exemption import exempt
from asgi_ratelimit.fastapi.openapi import document_limits
from asgi_ratelimit.fastapi.usage import CallerLimits, Usage, usage_router

__all__ = ["CallerLimits", "RateLimit", "Usage", "document_limits", "exempt", "rate_limit", "usage_router"]
