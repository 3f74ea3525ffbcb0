"""One outage under an app: before, during and after it, and all its results."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from asgi_ratelimit.limits import Outage
from asgi_ratelimit.redis import StoreEvent
from tests.support.app_server import Answer, AppServer, ClientRequest
from tests.support.faults import Fault
from tests.support.servers import KINDS, Proxy, Server

USED = 10  # by either user, before it
AT_ONCE = 100  # requests of either user
BURST: list[ClientRequest] = [("/", "ada"), ("/own", "bob")] * AT_ONCE
OTHERS: list[ClientRequest] = [("/", "cid"), ("/own", "dora")] * AT_ONCE
HEALTHY: list[ClientRequest] = [("/", "eve"), ("/own", "finn")] * AT_ONCE


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
    """The results of a case."""

    case: Case
    before: list[Answer]
    healthy: list[Answer]
    during: list[Answer]  # the burst of the users with records in Redis
    others: list[Answer]  # another burst, once the breaker was open
    after: list[Answer]  # one more request of each user
    ada_left: int  # according to Redis
    cid_left: int
    dialled: int  # connections that were attempted during the outage
    seconds: float  # that it lasted
    events: list[StoreEvent]
    logged: list[str]
    failures: list[str]

    @property
    def answers(self) -> list[Answer]:
        return [*self.before, *self.healthy, *self.during, *self.others, *self.after]


def lived_through(case: Case) -> Seen:
    """Break a server under an app, and mend it."""
    options: dict[str, Any] = {"outage": case.mode, "timeout": case.timeout}
    with Server(case.kind) as server, Proxy(server) as proxy, AppServer(proxy.url, **options) as app_server:
        healthy = app_server.request(*HEALTHY)
        app_server.wait_until_shared()
        before = [answer for request in BURST[: 2 * USED] for answer in app_server.request(request)]
        earlier_events, earlier_messages = len(app_server.events), len(app_server.logged)
        started = time.monotonic()
        with case.fault(server, proxy):
            earlier_connections = proxy.connections
            during = app_server.request(*BURST)
            others = app_server.request(*OTHERS)
            dialled = proxy.connections - earlier_connections
        app_server.wait_until_shared()
        seconds = time.monotonic() - started
        after = app_server.request(("/", "ada"), ("/own", "bob"))
        ada, cid = app_server.left(server.url, "ada", "cid")
        events, logged, failures = (
            app_server.events[earlier_events:],
            app_server.logged[earlier_messages:],
            app_server.failures,
        )
    return Seen(case, before, healthy, during, others, after, ada, cid, dialled, seconds, events, logged, failures)
