"""The way in: keys, headers, request state, guard, responses, WebSockets, warnings and the middleware."""
