"""The way in: the middleware, and the parts that the other doors share.

middleware     RateLimitMiddleware: the ASGI door; websocket: the frames of one socket
guard          RequestGuard: the one decision about a request, for every door
holding        requests that are held instead of refused
limiter_cache  the limiters of one door
request_state  the decisions about one request, in its scope
settling       the real cost of a request; estimate: Estimate, a cost that learns of it
route_names    the path template of a route; own_limit: whether it has a limit of its own
responses      the 429 and the 503; headers: decisions as headers; stagger: successive moments for Discord's clients
diagnostics    checks for misconfiguration, each done once; proxies: those of proxies and addresses
path_patterns  the paths that are exempt, or the only ones that are limited
keyed_limits   by: limits with a key of their own; own_keys: those keys for one request
keys           the key of a request; users: who a user is; options: the types of the doors' options
client_ip      the address of a client; forwarded: the headers of proxies; addresses: their spellings
network_file   NetworkFile: networks in a file that may change; network_set: a look-up in many networks
refusal_count  the refusals of a door, counted for its Escalate
server_trust   whether the server believes every client's address
"""
