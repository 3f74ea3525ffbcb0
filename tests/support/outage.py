"""One outage under a site: before, during and after it, and all that was seen of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from asgi_ratelimit.limits import Outage
from asgi_ratelimit.redis import StoreEvent
from tests.support.app_server import Answer, Ask, Site
from tests.support.faults import Fault
from tests.support.servers import KINDS, Proxy, Server

USED = 10  # by either user, before it
AT_ONCE = 100  # requests of either user
BURST: list[Ask] = [("/", "ada"), ("/own", "bob")] * AT_ONCE
OTHERS: list[Ask] = [("/", "cid"), ("/own", "dora")] * AT_ONCE
HEALTHY: list[Ask] = [("/", "eve"), ("/own", "finn")] * AT_ONCE


@dataclass(frozen=True)
class Case:
    fault: Fault
    mode: Outage = "local"
    kind: str = KINDS[0]
    timeout: float = 0.5  # seconds: on a small machine the app, its clients and the proxy take turns

    def __str__(self) -> str:
        return f"{self.fault.__name__}-{self.mode}-{self.kind}"


@dataclass(frozen=True)
class Seen:
    """What came of a case."""

    case: Case
    before: list[Answer]
    healthy: list[Answer]
    during: list[Answer]  # the burst of those whom Redis knew
    others: list[Answer]  # another burst, once the outage was known
    after: list[Answer]  # one more request of each user
    ada_left: int  # if Redis is asked
    cid_left: int
    dialled: int  # connections that were attempted during the outage
    seconds: float  # that it lasted
    events: list[StoreEvent]
    said: list[str]
    failures: list[str]

    @property
    def answers(self) -> list[Answer]:
        return [*self.before, *self.healthy, *self.during, *self.others, *self.after]


def lived_through(case: Case) -> Seen:
    """Break a server under a site, and mend it."""
    options: dict[str, Any] = {"outage": case.mode, "timeout": case.timeout}
    with Server(case.kind) as server, Proxy(server) as proxy, Site(proxy.url, **options) as site:
        healthy = site.ask(*HEALTHY)
        site.wait_until_shared()
        before = [answer for ask in BURST[: 2 * USED] for answer in site.ask(ask)]
        heard, read = len(site.events), len(site.said)
        begun = time.monotonic()
        with case.fault(server, proxy):
            known = proxy.connections
            during = site.ask(*BURST)
            others = site.ask(*OTHERS)
            dialled = proxy.connections - known
        site.wait_until_shared()
        seconds = time.monotonic() - begun
        after = site.ask(("/", "ada"), ("/own", "bob"))
        ada, cid = site.left(server.url, "ada", "cid")
        events, said, failures = site.events[heard:], site.said[read:], site.failures
    return Seen(case, before, healthy, during, others, after, ada, cid, dialled, seconds, events, said, failures)
