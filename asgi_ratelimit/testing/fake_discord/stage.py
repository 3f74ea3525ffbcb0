"""Stage: a FakeDiscord that plays one scenario and keeps the score, also over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from starlette.types import Receive, Scope, Send

from asgi_ratelimit.clock import Clock, SystemClock
from asgi_ratelimit.testing.fake_discord.options import body_of
from asgi_ratelimit.testing.fake_discord.routes import segments_of
from asgi_ratelimit.testing.fake_discord.scenarios import LATENCY, SCENARIOS, Scenario, identity_of, is_done

__all__ = ["Score", "Stage", "scenario_of"]


@dataclass(frozen=True, slots=True)
class Score:
    """What became of a scenario so far.

    requests: all that arrived, log-ins included
    refused: the 429s by scope; "cloudflare": those of a ban
    lost: planned calls that were not carried out, except those that are cancelled
    doubled: planned calls that were carried out more than once
    makespan: seconds from the first planned request to the last answer
    ideal: those of a client that knows every limit beforehand
    idle: seconds since the last planned request
    lost_calls: which
    """

    scenario: str
    requests: int
    refused: Mapping[str, int]
    lost: int
    doubled: int
    makespan: float
    ideal: float
    idle: float
    lost_calls: list[str]

    @property
    def is_well(self) -> bool:
        return not (self.lost or self.doubled)


def scenario_of(key: object) -> Scenario:
    """The scenario of this name. ValueError if there is none."""
    if not isinstance(key, str) or key not in SCENARIOS:
        raise ValueError(f"a scenario is one of {', '.join(SCENARIOS)}; not {key!r}")
    return SCENARIOS[key]


class Stage:
    """An ASGI app: Discord's API under the limits of a scenario.

    GET /_plan: the calls that a client is to make
    GET /_result: the score
    POST /_reset: all anew, or another scenario: {"scenario": "herd"}
    POST /_start: count from here; what is used of the limits stays used
    """

    def __init__(self, scenario: Scenario, *, clock: Clock | None = None) -> None:
        self._clock = SystemClock() if clock is None else clock
        self._controls = {
            ("GET", "/_plan"): self._plan,
            ("GET", "/_result"): self._result,
            ("POST", "/_reset"): self._reset,
            ("POST", "/_start"): self._start,
        }
        self.play(scenario)

    def play(self, scenario: Scenario) -> None:
        """Open a new FakeDiscord for it."""
        self.scenario = scenario
        self.fake = scenario.new_fake(self._clock)
        self._places = {(call.method, segments_of(call.path)) for call in scenario.all_calls()}
        self.start()

    def start(self) -> None:
        """Count from here, e.g. once everybody has logged in."""
        self.fake.reset_record()
        self._first_us = self._last_request_us = self._last_answer_us = 0

    def score(self) -> Score:
        scenario, seen = self.scenario, self.fake.requests
        done = Counter(identity_of(each) for each in seen if is_done(each))
        lost = [call.identity for call in scenario.awaited if call.identity not in done]
        return Score(
            scenario=scenario.key,
            requests=self.fake.count(),
            refused=dict(Counter(each.scope or "cloudflare" for each in self.fake.refused)),
            lost=len(lost),
            doubled=sum(done[call.identity] > 1 for call in scenario.all_calls()),
            makespan=max(0, self._last_answer_us - self._first_us) / 1e6,
            ideal=scenario.ideal,
            idle=(self._clock.now_us() - self._last_request_us) / 1e6 if self._first_us else 0.0,
            lost_calls=lost,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        control = self._controls.get((scope.get("method"), scope.get("path")))  # type: ignore[arg-type]
        if scope["type"] != "http" or control is None:
            await self._perform(scope, receive, send)
        elif (body := await body_of(receive)) is not None:
            status, content = control(body)
            await _answer(send, status, content)

    async def _perform(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (scope["method"], segments_of(scope["path"])) not in self._places:
            await self.fake(scope, receive, send)
            return
        self._last_request_us = self._clock.now_us()
        if not self._first_us:
            self._begin()
        await self.fake(scope, receive, send)
        self._last_answer_us = self._clock.now_us()

    def _begin(self) -> None:
        self._first_us = self._last_request_us
        if self.scenario.stop is not None:
            when, seconds = self.scenario.stop
            asyncio.get_running_loop().call_later(when, partial(self.fake.stop, seconds, interactions=True))

    # Its own addresses

    def _plan(self, body: bytes) -> tuple[int, Any]:
        scenario = self.scenario
        facts = {"scenario": scenario.key, "about": scenario.name, "ideal": scenario.ideal, "latency": LATENCY}
        calls = [[call.as_json() for call in calls] for calls in scenario.calls]
        return 200, {**facts, "global_limit": scenario.global_limit, "processes": calls}

    def _result(self, body: bytes) -> tuple[int, Any]:
        return 200, asdict(self.score())

    def _reset(self, body: bytes) -> tuple[int, Any]:
        try:
            wanted = json.loads(body or b"{}")
            self.play(scenario_of(wanted["scenario"]) if "scenario" in wanted else self.scenario)
        except (TypeError, ValueError) as error:
            return 400, {"message": str(error)}
        return 200, {"scenario": self.scenario.key}

    def _start(self, body: bytes) -> tuple[int, Any]:
        self.start()
        return 200, {"scenario": self.scenario.key}


async def _answer(send: Send, status: int, content: Any) -> None:
    body = json.dumps(content).encode("ascii")
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
