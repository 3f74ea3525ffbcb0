"""One request in flight, from the call of the app to the start of its response."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from starlette.types import Message, Receive, Scope, Send

__all__ = ["Flight", "Steering"]


class Steering(Protocol):
    """the reader of a flight."""

    now_ns: Callable[[], int]

    def land(self, flight: Flight, now_ns: int, is_sample: bool) -> None:
        """The flight has ended. `is_sample`: the time that it took counts."""
        ...

    def withdraw(self, flight: Flight) -> None:
        """The flight has not begun, and is shed."""
        ...

    def pause(self) -> None:
        """A flight waits for its client."""
        ...

    def resume(self) -> None:
        """It goes on."""
        ...


class Flight:
    """The channels of a request.

    It ends with the start of the response. So the length of a stream, and the work after a response, do not count. The
    time for which its client keeps it waiting for the body does not count either, and it is not in flight meanwhile.
    """

    __slots__ = (
        "_body_is_read", "_is_paused", "_receive", "_send", "_steering", "has_ended", "is_calm", "scope", "started_ns",
        "waited_ns",
    )  # fmt: skip

    def __init__(
        self, steering: Steering, scope: Scope, receive: Receive, send: Send, started_ns: int, is_calm: bool
    ) -> None:
        self._steering, self.scope, self._receive, self._send = steering, scope, receive, send
        self.started_ns, self.is_calm = started_ns, is_calm
        self.waited_ns = 0
        self.has_ended = self._body_is_read = self._is_paused = False

    def send(self, message: Message) -> Awaitable[None]:
        """No coroutine itself, but the server's: one less for each message."""
        if message["type"] == "http.response.start" and not self.has_ended:
            # A failure is often quick, and shows nothing.
            self.end(message.get("status", 500) < 500)
        return self._send(message)

    async def receive(self) -> Message:
        if self.has_ended or self._body_is_read or self._is_paused:
            return await self._receive()
        self._pause()
        try:
            message = await self._receive()
        finally:
            self._resume()
        self._body_is_read = message["type"] != "http.request" or not message.get("more_body")
        return message

    def end(self, is_sample: bool = False) -> None:
        """End it, unless it has ended already: its place is free. `is_sample`: the time that it took counts."""
        if self.has_ended:
            return
        self.has_ended = True
        steering = self._steering
        if self._is_paused:
            steering.resume()
        steering.land(self, steering.now_ns(), is_sample)

    def withdraw(self) -> None:
        """It is shed before it has begun."""
        if not self.has_ended:  # it may have been left out, if it has waited for very long
            self.has_ended = True
            self._steering.withdraw(self)

    def _pause(self) -> None:
        self._is_paused = True
        self.waited_ns -= self._steering.now_ns()
        self._steering.pause()

    def _resume(self) -> None:
        self._is_paused = False
        self.waited_ns += self._steering.now_ns()
        if not self.has_ended:  # the app has answered, or left, while it was waiting
            self._steering.resume()
