"""interactions.py: the client's own requests, without a gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

from benchmarks.discord_clients.job import EMOJI, PREFIX, TOKEN, Verb, run


@asynccontextmanager
async def connect(job: Mapping[str, Any]) -> AsyncIterator[Mapping[str, Verb]]:
    library = import_module(job["library"])
    import_module("interactions.api.http.route").Route.BASE = f"{job['address']}{PREFIX}"  # it has no option for it
    client = library.Client(token=TOKEN)
    try:
        await client.login()

        async def send(channel: int, name: int) -> None:
            _check(await client.http.create_message({"content": str(name)}, channel))

        async def react(channel: int, message: int) -> None:
            await client.http.create_reaction(channel, message, EMOJI)

        yield {"send": send, "react": react}
    finally:
        await client.http.close()


def _check(message: Any) -> None:
    """It gives up without a word."""
    if not message:
        raise RuntimeError("no message")


if __name__ == "__main__":
    run(connect)
