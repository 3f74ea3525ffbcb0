"""`asgi-ratelimit top`: the limiters of an app, live."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from asgi_ratelimit.cli.http_headers import HeaderLines, headers_of_lines
from asgi_ratelimit.cli.options import AsJson, Patience, Prefix, RedisURL, SecretFile, redis_url, secret_of
from asgi_ratelimit.cli.running import NoAnswer, run, sentences
from asgi_ratelimit.cli.screen import console, draw, write_json
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.shown import one_line

if TYPE_CHECKING:
    from asgi_ratelimit.cli.snapshot_sources import Source
    from asgi_ratelimit.observe import Snapshot

__all__ = ["top"]

NOTHING = "no process shares its counts there: an app does with `await stats.share(store)`, and the same prefix"


def top(
    redis: RedisURL = None,
    url: Annotated[
        str | None,
        typer.Option("--url", metavar="URL", show_default=False, help="The operator's page, instead of a Redis."),
    ] = None,
    header: HeaderLines = None,
    every: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Between two looks.")] = 5.0,
    limiters: Annotated[int, typer.Option(min=1, metavar="N", help="How many of the busiest to show.")] = 20,
    once: Annotated[bool, typer.Option("--once", help="Show the counts once, and end.")] = False,
    prefix: Prefix = "ratelimit",
    secret_file: SecretFile = None,
    timeout: Patience = 5.0,
    as_json: AsJson = False,
) -> None:
    """Show the limiters of an app, the busiest first, until Ctrl-C.

    The counts are those of the app's Stats, of all processes together. In a pipe they are shown once.

    /s: decisions per second since the last look. minute: those of this minute so far. all: since the processes started.
    """
    with sentences():
        from asgi_ratelimit.cli.snapshot_sources import page_source, redis_source

        source: AbstractAsyncContextManager[Source]
        if url is not None:
            source = page_source(url, headers_of_lines(header))
        else:
            source = redis_source(redis_url(redis), prefix=prefix, secret=secret_of(secret_file), timeout=timeout)
        run(_shown(source, every, limiters, once=once, as_json=as_json))


async def _shown(
    source: AbstractAsyncContextManager[Source], every: float, most: int, *, once: bool, as_json: bool
) -> None:
    async with source as read:
        first = await read()
        if not first.processes and not first.limiters:
            raise NoAnswer(NOTHING)
        if as_json:
            await _lines(read, first, every, once=once)
        elif once or not sys.stdout.isatty():
            draw(_view(first, None, most))
        else:
            await _live(read, first, every, most)


async def _lines(read: Source, first: Snapshot, every: float, *, once: bool) -> None:
    """JSON, one line for each look."""
    snapshot = first
    while True:
        write_json(snapshot.to_dict())
        if once:
            return
        await asyncio.sleep(every)
        snapshot = await read()


async def _live(read: Source, first: Snapshot, every: float, most: int) -> None:
    """A table that is drawn again and again. The last one stays on the screen."""
    former, snapshot, trouble = first, first, ""
    view: RenderableType = _view(first, None, most)
    try:
        with Live(view, console=console(), screen=True, auto_refresh=False) as live:
            while True:
                await asyncio.sleep(every)
                try:
                    former, snapshot, trouble = snapshot, await read(), ""
                except (StoreUnavailable, NoAnswer) as error:
                    trouble = str(error)
                view = _view(snapshot, former, most)
                live.update(Group(view, Text(one_line(trouble), "red")) if trouble else view, refresh=True)
    except asyncio.CancelledError:  # Ctrl-C is how it ends
        draw(view)


def _view(snapshot: Snapshot, former: Snapshot | None, most: int) -> RenderableType:
    from asgi_ratelimit.cli.snapshot_view import snapshot_view

    return snapshot_view(snapshot, former, most, width=console().width)
