"""A program for any of Discord's Python libraries: many bots at once, each of which makes all of its calls at once.

It runs in an environment of its own, where nothing of the tests can be imported. Its argument is the library.
Its input is one line of JSON: {"address": …, "tokens": […], "users": […], "seconds": …}.
Its output is another: {token: {user: "ok", "given up" or an error}}.
"""

from __future__ import annotations

import asyncio
import json
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

Fetch = Callable[[str], Awaitable[Any]]  # fetches a user: the number in the response, or None
PREFIX = "/api/v10"


@asynccontextmanager
async def like_discord_py(library: Any, token: str, address: str) -> AsyncIterator[Fetch]:
    """A client of discord.py, or of one of the libraries that began as a copy of it."""
    route = library.http.Route
    setattr(route, "BASE" if hasattr(route, "BASE") else "API_BASE_URL", f"{address}{PREFIX}")
    client = library.Client(intents=library.Intents.none())
    try:
        await client.login(token)

        async def fetch(user: str) -> Any:
            return (await client.fetch_user(int(user))).id

        yield fetch
    finally:
        await client.close()


@asynccontextmanager
async def hikari(library: Any, token: str, address: str) -> AsyncIterator[Fetch]:
    app = library.RESTApp(url=f"{address}{PREFIX}")
    await app.start()
    try:
        async with app.acquire(token, "Bot") as client:

            async def fetch(user: str) -> Any:
                return (await client.fetch_user(int(user))).id

            yield fetch
    finally:
        await app.close()


@asynccontextmanager
async def interactions_py(library: Any, token: str, address: str) -> AsyncIterator[Fetch]:
    import_module("interactions.api.http.route").Route.BASE = f"{address}{PREFIX}"
    client = library.Client(token=token)
    try:
        await client.login()

        async def fetch(user: str) -> Any:
            found = await client.http.get_user(int(user))
            return found and found["id"]

        yield fetch
    finally:
        await client.http.close()


async def bot(library: str, token: str, address: str, users: list[str], seconds: float) -> dict[str, str]:
    """The outcome of each call of one bot."""
    module = import_module(library)
    of_library = {"hikari": hikari, "interactions": interactions_py}.get(library, like_discord_py)
    outcomes = dict.fromkeys(users, "it hangs")

    async def call(fetch: Fetch, user: str) -> None:
        try:
            number = await fetch(user)
            outcomes[user] = "given up" if number is None else "ok" if int(number) == int(user) else "another user"
        except Exception as error:
            outcomes[user] = f"{type(error).__name__}: {error}"

    try:
        async with asyncio.timeout(seconds), of_library(module, token, address) as fetch:
            await asyncio.gather(*(call(fetch, user) for user in users))
    except Exception as error:
        outcomes = {user: f"{type(error).__name__}: {error}" if o == "it hangs" else o for user, o in outcomes.items()}
    return outcomes


async def main(library: str) -> None:
    job = json.loads(sys.stdin.readline())
    warnings.simplefilter("ignore")
    options = job["address"], job["users"], job["seconds"]
    outcomes = await asyncio.gather(*(bot(library, token, *options) for token in job["tokens"]))
    sys.stdout.write(json.dumps(dict(zip(job["tokens"], outcomes, strict=True))))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
