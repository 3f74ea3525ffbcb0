"""The way in: the middleware, and the parts that the other doors share.

middleware     RateLimitMiddleware: the ASGI door; websocket: the frames of one socket
guard          RequestGuard: the one decision about a request, for every door
holding        requests that are held instead of refused
limiter_cache  the limiters of one door
request_state  the decisions about one request, in its scope
responses      the 429 and the 503; headers: decisions as headers; stagger: successive moments for Discord's clients
diagnostics    checks for misconfiguration, each done once
keys           the key of a request; options: the types of the doors' options
"""
