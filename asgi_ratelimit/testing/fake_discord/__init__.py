"""FakeDiscord: an ASGI app that limits as Discord does.

app        FakeDiscord: its options, and a request from its arrival to its response
orders     its verbs: what can be done to it at any time
endpoints  the routes that it carries out
buckets    its limits; routes: templates of paths
faults     failures, broken connections, responses that are held
responses  the forms of its responses
record     the requests that it has seen
options    its options, checked

scenarios  calls, limits and the ideal time, by which clients are measured
stage      a FakeDiscord that plays a scenario and keeps the score; serving: the same in a process of its own
"""

from asgi_ratelimit.testing.fake_discord.app import FakeDiscord
from asgi_ratelimit.testing.fake_discord.buckets import FakeBucket

__all__ = ["FakeBucket", "FakeDiscord"]
