"""discord.py and hikari under one verb: fetch a user by number, and return the number of the user in the response."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import hikari
import pytest

from tests.real_clients.discord_api import PREFIX

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "'audioop' is deprecated", DeprecationWarning)
    import discord

Fetch = Callable[[int], Awaitable[int]]


@contextmanager
def discord_py_led_to(address: str) -> Iterator[None]:
    """While the block runs, every discord.Client calls this address instead of Discord: it has no option for that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(discord.http.Route, "BASE", f"{address}{PREFIX}")
        yield


@asynccontextmanager
async def discord_py(token: str, address: str) -> AsyncIterator[Fetch]:
    """A logged-in discord.Client, led to the address."""
    assert f"{address}{PREFIX}" == discord.http.Route.BASE
    async with discord.Client(intents=discord.Intents.none()) as client:
        await client.login(token)

        async def fetch(number: int) -> int:
            return (await client.fetch_user(number)).id

        yield fetch


@asynccontextmanager
async def hikari_rest(token: str, address: str) -> AsyncIterator[Fetch]:
    """A client of a hikari.RESTApp."""
    app = hikari.RESTApp(url=f"{address}{PREFIX}")
    await app.start()
    try:
        async with app.acquire(token, "Bot") as client:

            async def fetch(number: int) -> int:
                return int((await client.fetch_user(number)).id)

            yield fetch
    finally:
        await app.close()
