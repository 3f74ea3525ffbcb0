"""One connection through a proxy: one lane for the commands, and one for the replies."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass

import hiredis

from tests.support.servers.server import HOST

RESET = struct.pack("ii", 1, 0)  # a socket that lingers for no seconds is closed by a reset
Chunk = tuple[float, bytes]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a proxy treats connections, commands and replies. `only` and `never` select the commands."""

    listening: bool = True
    silent: bool = False
    delay: float = 0.0
    reply: bytes = b""
    cuts_answers: bool = False
    only: frozenset[str] = frozenset()
    never: frozenset[str] = frozenset()

    def concerns(self, command: bytes) -> bool:
        name = command.decode("ascii", "replace").upper()
        return name not in self.never and (not self.only or name in self.only)


class Conduct:
    """The behaviour that all connections of one proxy show now."""

    def __init__(self) -> None:
        self.now = Behaviour()
        self._open = asyncio.Event()
        self._open.set()

    def become(self, behaviour: Behaviour) -> None:
        self.now = behaviour
        self._open.clear() if behaviour.silent else self._open.set()

    async def silence_over(self) -> None:
        await self._open.wait()


class Connection:
    """A client's connection, and the one to the server that belongs to it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, conduct: Conduct, port: int) -> None:
        self.open = True
        self._reader, self._client = reader, writer
        self._server: asyncio.StreamWriter | None = None
        self._conduct, self._port = conduct, port
        self._doomed = False

    async def run(self) -> None:
        questions: asyncio.Queue[Chunk | None] = asyncio.Queue()
        try:
            async with asyncio.TaskGroup() as lanes:
                lanes.create_task(self._read_client(questions))
                await self._conduct.silence_over()
                try:
                    reader, server = await asyncio.open_connection(HOST, self._port)
                except OSError:
                    self.reset()
                    return
                self._server = server
                answers: asyncio.Queue[Chunk | None] = asyncio.Queue()
                lanes.create_task(_read_chunks(reader, answers))
                lanes.create_task(self._forward(questions, server))
                lanes.create_task(self._answer(answers))
        finally:
            self.reset()

    def reset(self) -> None:
        """Cut both ends, now."""
        self.open = False
        _reset(self._client)
        if self._server is not None:
            _reset(self._server)

    async def _read_client(self, questions: asyncio.Queue[Chunk | None]) -> None:
        await _read_chunks(self._reader, questions)
        self.open = False

    async def _forward(self, questions: asyncio.Queue[Chunk | None], server: asyncio.StreamWriter) -> None:
        commands = hiredis.Reader()
        while (chunks := await questions.get()) is not None:
            commands.feed(chunks[1])
            while (command := commands.gets()) is not False:
                await self._conduct.silence_over()
                self._pass_on(command, server)
        await self._conduct.silence_over()
        with suppress(OSError):  # it has been reset meanwhile
            server.write_eof()  # the server still runs every command

    def _pass_on(self, command: list[bytes], server: asyncio.StreamWriter) -> None:
        behaviour = self._conduct.now
        concerned = behaviour.concerns(command[0])
        if behaviour.reply and concerned:
            _write(self._client, behaviour.reply)
            return
        self._doomed |= behaviour.cuts_answers and concerned
        _write(server, _packed(command))

    async def _answer(self, answers: asyncio.Queue[Chunk | None]) -> None:
        while (chunks := await answers.get()) is not None:
            arrived, answer = chunks
            await asyncio.sleep(arrived + self._conduct.now.delay - time.monotonic())
            await self._conduct.silence_over()
            if self._doomed:
                self.open = False
                _reset(self._client)  # but read on: the server has to run every command
            else:
                _write(self._client, answer)
        self._client.close()
        with suppress(OSError):
            await self._client.wait_closed()


async def _read_chunks(reader: asyncio.StreamReader, chunks: asyncio.Queue[Chunk | None]) -> None:
    with suppress(OSError):
        while chunk := await reader.read(65_536):
            chunks.put_nowait((time.monotonic(), chunk))
    chunks.put_nowait(None)


def _packed(command: list[bytes]) -> bytes:
    return b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in command)


def _write(writer: asyncio.StreamWriter, words: bytes) -> None:
    if not writer.is_closing():
        writer.write(words)


def _reset(writer: asyncio.StreamWriter) -> None:
    if not writer.is_closing():
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
