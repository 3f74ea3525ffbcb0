"""`asgi-ratelimit fake-discord`: a Discord that limits, and measures its clients."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from asgi_ratelimit.testing.fake_discord.scenarios import SCENARIOS, Scenario
from asgi_ratelimit.testing.fake_discord.serving import serve
from asgi_ratelimit.testing.fake_discord.stage import Score, Stage, scenario_of

__all__ = ["fake_discord"]


def fake_discord(
    scenario: Annotated[str, typer.Option(help="What to play; --list shows all.")] = "bucket",
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any that is free.")] = 8081,
    as_json: Annotated[bool, typer.Option("--json", help="Write the result as JSON.")] = False,
    shows_list: Annotated[bool, typer.Option("--list", help="List the scenarios.")] = False,
) -> None:
    """Serve a fake Discord until Ctrl-C, and show the fate of the calls of a scenario.

    GET /_plan has the calls that a client is to make, GET /_result the result so far. POST /_reset starts anew. Exit
    code 1: calls were lost, or carried out twice.
    """
    if shows_list:
        _list(as_json)
        return
    stage = Stage(_chosen(scenario))
    _serve(stage, host, port)
    score = stage.score()
    _show(score, as_json)
    raise typer.Exit(0 if score.is_well else 1)


def _chosen(key: str) -> Scenario:
    try:
        return scenario_of(key)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--scenario") from None


def _serve(stage: Stage, host: str, port: int) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)

    def announce(address: str) -> None:
        console.print(f"{stage.scenario.key}: {stage.scenario.name}", markup=False)
        console.print(f"The base URL is {address}/api/v10, the calls to make are at {address}/_plan", markup=False)

    try:
        serve(stage, announce, host=host, port=port)
    except ImportError as error:
        typer.echo(f"The command needs {error.name}: pip install 'asgi-ratelimit-discord[cli]'", err=True)
        raise typer.Exit(2) from None
    except OSError as error:
        raise typer.BadParameter(f"cannot listen on {host}, port {port}: {error.strerror}") from None


def _list(as_json: bool) -> None:
    entries = [_entry(scenario) for scenario in SCENARIOS.values()]
    if as_json:
        typer.echo(json.dumps(entries))
        return
    _print([list(map(str, entry.values())) for entry in entries], *entries[0])


def _entry(scenario: Scenario) -> dict[str, Any]:
    calls = sum(map(len, scenario.calls))
    return {"scenario": scenario.key, "about": scenario.name, "calls": calls, "ideal": round(scenario.ideal, 3)}


def _show(score: Score, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(score)))
        return
    rows = {
        "requests": score.requests,
        "429s": _by_scope(score.refused),
        "calls lost": score.lost,
        "calls carried out twice": score.doubled,
        "seconds": f"{score.makespan:.2f}",
        "of the ideal": f"{score.ideal:.2f}",
    }
    _print([[name, str(value)] for name, value in rows.items()], score.scenario, "")


def _by_scope(refused: Mapping[str, int]) -> str:
    scopes = ", ".join(f"{count} {scope}" for scope, count in sorted(refused.items()))
    return f"{sum(refused.values())} ({scopes})" if scopes else "0"


def _print(rows: list[list[str]], *head: str) -> None:
    table = Table(*head, box=None)
    for row in rows:
        table.add_row(*row)
    Console(soft_wrap=True).print(table)
