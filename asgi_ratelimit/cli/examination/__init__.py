"""What `asgi-ratelimit doctor` looks at.

of_redis         a Redis as a RedisStore uses it: its rights, and how long a check takes
server_facts     what a server says of itself; server_settings: what that means; transport: the way to it
of_app           an app from outside: whether its limit can be walked around
app_requests     the requests that it gets; rate_headers: what its answers say
findings         the lines of a report
"""
