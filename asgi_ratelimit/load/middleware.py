"""LoadShedMiddleware: an app under more load than it can bear serves what it can, and refuses the rest at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from itertools import cycle
from typing import Final

from starlette.types import Receive, Scope, Send

from asgi_ratelimit.clock import SystemClock
from asgi_ratelimit.events import Event, Observer, Observers, observers_of
from asgi_ratelimit.inbound.options import ASGIApplication, ExemptSource
from asgi_ratelimit.inbound.path_patterns import app_path, exempting
from asgi_ratelimit.inbound.request_filter import request_filter
from asgi_ratelimit.load.classes import PriorityFunction, PrioritySource
from asgi_ratelimit.load.controller import Controller
from asgi_ratelimit.load.flight import Flight
from asgi_ratelimit.load.loop_lag import LoopLag
from asgi_ratelimit.load.responses import MOST_SECONDS, send_overloaded
from asgi_ratelimit.load.server_load import LOOPS
from asgi_ratelimit.load.turns import Turn, TurnLine
from asgi_ratelimit.log_observer import with_log
from asgi_ratelimit.off_switch import OFF_SWITCH
from asgi_ratelimit.store import Store, check_store
from asgi_ratelimit.warnings import WarnOnce

__all__ = ["HEALTH_CHECKS", "LoadShedMiddleware"]

HEALTH_CHECKS: Final = (
    "/health", "/healthz", "/health/live", "/health/ready", "/healthcheck", "/live", "/livez", "/ready", "/readyz",
    "/ping",
)  # fmt: skip
_LAG_SHARE: Final = 0.25  # of the lag in what a request takes: a turn that works for one request is no queue


class LoadShedMiddleware:
    """Sheds load: `app.add_middleware(LoadShedMiddleware)`. Add it last, so that it stands outside.

    priority: a function of the connection that returns the class of a request: 0 (the most important) to 3. All are 1
        by default. The least important are shed first
    exempt: paths of the app that are never shed, or a function of the connection. Usual paths of health checks, such
        as /health and /readyz, never are
    store: its observers learn of each request that is shed, as an event of the kind "shed"; its clock is used
    observers: those that do, without a store
    name: in these events, "load"

    It measures how long requests take to the start of their responses, and compares that with what they take when
    nothing waits. From this it steers how many may be in flight. All others are answered at once, with a 503 and a
    Retry-After. WebSockets pass. Both functions may be sync or async, and run only for requests that may be shed. An
    exception that they raise is passed on. Raises ValueError if an option cannot be used.
    """

    controller_type = Controller  # and where the processor's time comes from: a simulation has others
    worked_s = staticmethod(time.process_time)

    def __init__(
        self,
        app: ASGIApplication,
        *,
        priority: PriorityFunction | None = None,
        exempt: ExemptSource = (),
        store: Store | None = None,
        observers: Iterable[Observer] = (),
        name: str = "load",
    ) -> None:
        check_store(store)
        listed = with_log(observers)
        if store is not None and observers:
            raise ValueError("give the observers to the store, as in MemoryStore(observers=[...]), or leave out store=")
        self.app, self._name = app, name
        clock = SystemClock() if store is None else store.clock
        self._observers = Observers(listed, clock) if store is None else observers_of(store)
        self._priority, self._filter = PrioritySource(priority, WarnOnce()), request_filter(exempt)
        self._is_health_check = exempting(HEALTH_CHECKS)
        self.now_ns = clock.now_ns
        self._controller = self.controller_type(self.now_ns(), self.worked_s())
        self._flights: dict[Flight, None] = {}  # oldest first
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lag = LoopLag()
        self._turns = TurnLine(self._controller)
        self._seconds = cycle(range(MOST_SECONDS))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        loop = asyncio.get_running_loop()
        if loop is not self._loop or not self._lag.is_running:
            self._loop, self._lag, self._turns = loop, LOOPS.of(loop), TurnLine(self._controller)
        controller = self._controller
        one, turn = None, None
        if controller.in_flight >= controller.free_below and not self._begins(loop):
            one = await self._class_of(scope)
            if not controller.has_room(one):
                controller.refuse(self.now_ns())
                await self._shed(one, scope, receive, send)
                return
            turn = self._turn_of(one, loop)
        flight = Flight(self, scope, receive, send, self.now_ns(), controller.enter())
        self._flights[flight] = None
        try:
            if turn is not None and not await turn:
                flight.withdraw()
                await self._shed(one, scope, receive, send)
                return
            await self.app(scope, flight.receive, flight.send)
        finally:
            if not flight.has_ended:
                flight.end()

    def land(self, flight: Flight, now_ns: int, is_sample: bool) -> None:
        """A flight has ended. `is_sample`: the time that it took counts."""
        controller = self._controller
        del self._flights[flight]
        found_calm = controller.leave()
        if is_sample:
            seconds = (now_ns - flight.started_ns - flight.waited_ns) / 1e9
            endpoint = flight.scope.get("endpoint")
            key = _group(flight.scope) if endpoint is None else id(endpoint)
            if flight.is_calm and found_calm:
                controller.baselines.add(key, seconds + _LAG_SHARE * self._lag.latest, True)
            else:
                controller.baselines.add(key, seconds + _LAG_SHARE * self._lag.seconds, False)
        if now_ns >= controller.tick_at:
            self._tick(now_ns)

    def withdraw(self, flight: Flight) -> None:
        """A flight has not begun, and is shed."""
        del self._flights[flight]
        self._controller.withdraw()

    def pause(self) -> None:
        """A flight waits for its client."""
        self._controller.in_flight -= 1

    def resume(self) -> None:
        """It goes on."""
        self._controller.in_flight += 1

    def _begins(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether the next request begins now, whatever it is: nothing waits, and there is room for all."""
        controller, now_ns = self._controller, self.now_ns()
        if now_ns >= controller.tick_at:  # there was no request meanwhile, and so no overload
            self._tick(now_ns)
        return controller.has_room_for_all and self._turns.begins(loop)

    def _turn_of(self, one: int | None, loop: asyncio.AbstractEventLoop) -> Turn | None:
        """The turn for which a request of this class has to wait; None: it begins now."""
        if one is None or self._turns.begins(loop, at_once=one == 0):
            return None
        return self._turns.wait(loop, one)

    async def _class_of(self, scope: Scope) -> int | None:
        """None: it is never shed."""
        is_exempt = (
            OFF_SWITCH.is_off
            or self._is_health_check(app_path(scope))
            or (self._filter is not None and not await self._filter.counts(scope))
        )
        if is_exempt:
            return None
        return await self._priority.of(scope)

    async def _shed(self, one: int | None, scope: Scope, receive: Receive, send: Send) -> None:
        controller, now_ns = self._controller, self.now_ns()
        if now_ns >= controller.tick_at:
            self._tick(now_ns)
        self._observers.emit(Event("shed", self._name, priority=one or 0))
        # The farther beyond what the app can bear, the longer the time over which its clients come back.
        spread = 1 + int((MOST_SECONDS - 1) * max(0.0, controller.excess))
        await send_overloaded(scope, receive, send, 1 + next(self._seconds) % spread)

    def _tick(self, now_ns: int) -> None:
        controller, lag = self._controller, self._lag
        if self._loop is not None:
            lag.keep_running(self._loop)
        if controller.is_refusing:
            lag.shed()
        controller.tick(now_ns, self.worked_s(), lag.seconds)
        self._turns.shed(controller.surplus)
        for flight in [one for one in self._flights if now_ns - one.started_ns > controller.long_ns]:
            flight.end()


def _group(scope: Scope) -> str:
    """The route of a request as far as a path shows it: the app is none of Starlette's, or no route was found."""
    return f"{scope.get('method')} {str(scope.get('path')).split('/', 2)[1:2]}"
