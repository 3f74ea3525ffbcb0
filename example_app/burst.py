"""A burst of messages to Discord, and the report of it while it lasts."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Literal

import httpx
from pydantic import BaseModel, Field

from asgi_ratelimit.discord import DiscordError, DiscordEvent
from example_app.bot import ROUTE, Bot, Bots, Window, ideal

__all__ = ["CHANNELS", "MESSAGES", "REAL_MOST", "TROUBLES", "Burst", "Plan"]

Trouble = Literal["none", "refusal", "hash", "failure"]

MESSAGES = (10, 20, 40, 60)
CHANNELS = (1, 2, 4, 6)
NAMES = ("general", "random", "music", "memes", "support", "off-topic")
TROUBLES: dict[Trouble, str] = {"none": "None", "refusal": "A 429", "hash": "A new hash", "failure": "A 503"}
REAL_MOST = 6  # messages to a channel where people read them
LOOK_S = 0.1  # between two looks at the queue
REFUSAL_S = 1.5

_CHANNEL = re.compile(r"\[channels/(\d+)\]")


class Plan(BaseModel):
    """The choices of a visitor."""

    messages: int = Field(20, ge=1, le=MESSAGES[-1])
    channels: int = Field(2, ge=1, le=CHANNELS[-1])
    window: Window = "fixed"
    trouble: Trouble = "none"
    confirmed: bool = False  # where people read them

    def for_real(self) -> Plan:
        """The part of the plan that suits a Discord with people in it."""
        return self.model_copy(update={"messages": min(self.messages, REAL_MOST), "channels": 1, "trouble": "none"})


class Burst:
    """All messages of a plan, handed to the client at once. `lines` reports on them."""

    def __init__(self, bots: Bots, plan: Plan) -> None:
        self._plan = plan if bots.real_channel is None else plan.for_real()
        self._bot: Bot = bots.by_window[plan.window]
        self._channels = bots.channels(self._plan.channels)
        self._is_real = bots.real_channel is not None
        self._reports: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._statuses: Counter[int] = Counter()
        self._outcomes: Counter[str] = Counter()
        self._trouble_at = self._plan.messages // 2  # the number of the message that meets it
        self._began_us = 0

    async def lines(self) -> AsyncIterator[str]:
        """One JSON object a line: begin, then sent, answered, event, queue, trouble and lost as they come, and end.

        `at` is in seconds since the beginning. A reader that stops cancels all messages that have not been sent yet.
        """
        running = asyncio.create_task(self._run())
        try:
            while (line := await self._reports.get()) is not None:
                yield json.dumps(line) + "\n"
            await running
        finally:
            running.cancel()

    async def _run(self) -> None:
        self._began_us = self._bot.clock.now_us()
        try:
            with self._bot.listen(self._note_event):
                self._emit_begin()
                async with asyncio.TaskGroup() as group:
                    for number in range(self._plan.messages):
                        group.create_task(self._send(number))
                    group.create_task(self._look())
                self._emit_end()
        finally:
            self._reports.put_nowait(None)

    async def _send(self, number: int) -> None:
        channel = self._channels[number % len(self._channels)]
        content = f"Message {number + 1} of {self._plan.messages}"
        try:
            answer = await self._bot.post(channel, content, partial(self._note_trip, number))
        except (DiscordError, httpx.HTTPError) as error:
            self._emit_lost(number, str(error))
        else:
            self._outcomes["delivered"] += answer.is_success
            if not answer.is_success:
                self._emit_lost(number, f"Discord has answered {answer.status_code}")

    async def _look(self) -> None:
        """The queue as the client shows it, again and again until it is empty."""
        while self._outcomes.total() < self._plan.messages:
            lines = [
                {"channel": place, "calls": line.calls, "cause": line.cause, "seconds": line.seconds}
                for line in self._bot.client.waiting
                if (place := self._place(line.route)) is not None
            ]
            self._emit("queue", lines=lines)
            await self._bot.clock.sleep(LOOK_S)

    # The report

    def _emit(self, kind: str, **more: object) -> None:
        at = (self._bot.clock.now_us() - self._began_us) / 1e6
        self._reports.put_nowait({"kind": kind, "at": round(at, 4), **more})

    def _emit_begin(self) -> None:
        plan = self._plan
        share, rest = divmod(plan.messages, len(self._channels))
        channels = [
            {"name": self._channels[0] if self._is_real else NAMES[place], "messages": share + (place < rest)}
            for place in range(len(self._channels))
        ]
        best = None if self._is_real else ideal(plan.messages, plan.channels, plan.window)
        self._emit("begin", channels=channels, messages=plan.messages, ideal=best)

    def _emit_end(self) -> None:
        self._emit(
            "end",
            delivered=self._outcomes["delivered"],
            lost=self._outcomes["lost"],
            refused=self._statuses[429],
            failed=sum(count for status, count in self._statuses.items() if status >= 500),
        )

    def _emit_lost(self, number: int, why: str) -> None:
        self._outcomes["lost"] += 1
        self._emit("lost", number=number, why=why)

    def _note_trip(self, number: int, answer: httpx.Response | None) -> None:
        """A message leaves, or its answer is here."""
        place = number % len(self._channels)
        if answer is None:
            self._emit("sent", number=number, channel=place)
            if number == self._trouble_at:
                self._trouble_at = -1
                self._make_trouble(place)
            return
        self._statuses[answer.status_code] += 1
        limits = {name: answer.headers.get(f"x-ratelimit-{name}") for name in ("bucket", "limit", "remaining")}
        self._emit("answered", number=number, channel=place, status=answer.status_code, **limits)

    def _note_event(self, event: DiscordEvent) -> None:
        place = self._place(event.route)
        if place is not None:
            self._emit(
                "event", what=event.kind, channel=place, cause=event.cause, seconds=event.seconds, status=event.status
            )

    def _place(self, route: str) -> int | None:
        """Which of the burst's channels a route of the client's is about."""
        match = _CHANNEL.search(route)
        return self._channels.index(match[1]) if match is not None and match[1] in self._channels else None

    def _make_trouble(self, place: int) -> None:
        """For the message that is just leaving, or from now on."""
        fake, here = self._bot.fake, ROUTE.format(channel_id=self._channels[place])
        if fake is None or self._plan.trouble == "none":
            return
        if self._plan.trouble == "refusal":
            fake.refuse(here, REFUSAL_S)
        elif self._plan.trouble == "hash":
            fake.change_hash(ROUTE, secrets.token_hex(16))
        else:
            fake.fail(503, route=here)
        self._emit("trouble", what=self._plan.trouble, channel=place)
