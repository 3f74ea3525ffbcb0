"""A proxy in front of a server that misbehaves on demand: refuses, is silent, answers late or wrongly, hangs up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable
from typing import Any, Self

from tests.support.servers.connection import Behaviour, Conduct, Connection
from tests.support.servers.server import HOST, SECONDS, Server, free_port

# The commands of a handshake. Without an answer to these a client could not send a command a second time.
HANDSHAKE = frozenset({"HELLO", "AUTH", "CLIENT", "SELECT", "READONLY"})


class Proxy:
    """Stands in front of a server on a port of its own. Each verb sets its behaviour from now on.

    It lives in a thread with an event loop of its own, so its verbs can be called from any test; they return when the
    change is made.
    """

    port = 0

    def __init__(self, server: Server) -> None:
        self.connections = 0
        self._target = server
        self._conduct = Conduct()
        self._listening: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], Connection] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")

    @property
    def url(self) -> str:
        return self._target.url.replace(f":{self._target.port}", f":{self.port}")

    @property
    def open_connections(self) -> int:
        """How many clients are connected now; `connections` is how many ever were."""
        return sum(connection.open for connection in tuple(self._connections.values()))

    def pass_through(self) -> None:
        self._become(Behaviour())

    def refuse(self) -> None:
        """Connection refused; `cut` those that exist if they are to end as well."""
        self._become(Behaviour(listening=False))

    def silence(self) -> None:
        """Connections are accepted, and nothing passes: commands arrive when the silence is over."""
        self._become(Behaviour(silent=True))

    def delay(self, seconds: float) -> None:
        """Every answer is held back for so long."""
        self._become(Behaviour(delay=seconds))

    def reply(self, answer: bytes, *, to: Iterable[str] = ()) -> None:
        """Every command (or only those) is answered with these bytes, and the server never hears of it."""
        self._become(Behaviour(reply=answer, only=frozenset(to)))

    def cut_answers(self, *, to: Iterable[str] = ()) -> None:
        """The server does every command (or only those), and the connection is reset instead of the answer.

        The handshake is answered, so that a client that sends a command twice is caught.
        """
        self._become(Behaviour(cuts_answers=True, only=frozenset(to), never=HANDSHAKE))

    def cut(self) -> None:
        """Reset every connection now; new ones are as welcome as before."""
        self._run(self._cut())

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._run(self._start())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._run(self._close())
        finally:
            self._end()

    def _run(self, verb: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(verb, self._loop).result(SECONDS)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _become(self, behaviour: Behaviour) -> None:
        self._run(self._switch(behaviour))

    async def _switch(self, behaviour: Behaviour) -> None:
        self._conduct.become(behaviour)
        if not behaviour.listening:
            await self._stop_listening()
        elif self._listening is None:
            await self._listen()

    async def _start(self) -> None:
        while self._listening is None:
            self.port = free_port()
            try:
                await self._listen()
            except OSError:
                continue

    async def _listen(self) -> None:
        self._listening = await asyncio.start_server(self._accept, HOST, self.port)

    async def _stop_listening(self) -> None:
        if self._listening is None:
            return
        for each in self._listening.sockets:
            self._loop.remove_reader(each)
        for _ in range(5):
            await asyncio.sleep(0)  # asyncio drops connections that it is accepting when it closes a server
        self._listening.close()
        self._listening = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = Connection(reader, writer, self._conduct, self._target.port)
        task = self._loop.create_task(connection.run())
        self._connections[task] = connection
        task.add_done_callback(self._connections.pop)

    async def _cut(self) -> None:
        for connection in self._connections.values():
            connection.reset()
        await asyncio.sleep(0)  # the sockets are closed in the next turn of the loop

    async def _close(self) -> None:
        await self._stop_listening()
        await self._cut()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await asyncio.sleep(0)
