"""The Discord part of the page: how often each client is refused, how long it takes, and what it loses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from statistics import median

from asgi_ratelimit.testing.fake_discord.scenarios import GLOBAL_LIMIT, LATENCY, SCENARIOS, Scenario
from benchmarks.discord_harness import Candidate, Result, play, python_client
from benchmarks.discord_libraries import installed_clients
from benchmarks.discord_server import RemoteStage, stage
from benchmarks.redis_server import PrivateServer, private_server
from benchmarks.report import table

__all__ = ["HEAD", "cell", "sections", "title"]

PACKAGE = "asgi-ratelimit-discord"
# A thread cannot be cancelled from outside, and nobody starts four thousand of them.
UNFIT_FOR_THREADS = ("cancelled", "many")
CLIENTS = (
    python_client("**asgi_ratelimit**", "ours", PACKAGE, shares=True),
    python_client("the same without Redis", "ours", PACKAGE, only_shared=True),
    python_client("its SyncDiscordClient", "ours_sync", PACKAGE, shares=True, left_out=UNFIT_FOR_THREADS),
    python_client("discord.py", "discordpy", "discord.py", options={"library": "discord"}),
    python_client("hikari", "hikari", "hikari"),
)

HEAD = "429s, makespan by the ideal, calls lost"
Results = Mapping[Scenario, Mapping[Candidate, Sequence[Result]]]


def sections(quick: bool) -> Iterator[tuple[str, str, str]]:
    scenarios = [scenario for scenario in SCENARIOS.values() if scenario.is_row and (scenario.quick or not quick)]
    rounds = 1 if quick else 2
    with ExitStack() as stack:
        server, scene = stack.enter_context(private_server()), stack.enter_context(stage())
        candidates = [*CLIENTS, *stack.enter_context(installed_clients())]
        outcomes = {scenario: dict[Candidate, list[Result]]() for scenario in scenarios}
        for number in range(rounds):
            for scenario in scenarios:
                for candidate in _in_turn(candidates, number):
                    if _takes_part(candidate, scenario):
                        result = _play(scenario, candidate, scene, server)
                        outcomes[scenario].setdefault(candidate, []).append(result)
    rows = [
        [_head(scenario), *(cell(scenario, outcomes[scenario].get(c), c) for c in candidates)] for scenario in outcomes
    ]
    head = [HEAD, *(title(candidate, outcomes) for candidate in candidates)]
    yield "Calls to Discord", _text(rounds), table(head, rows)


def _in_turn(candidates: Sequence[Candidate], number: int) -> list[Candidate]:
    """Each round starts with another candidate."""
    start = number % len(candidates)
    return [*candidates[start:], *candidates[:start]]


def _takes_part(candidate: Candidate, scenario: Scenario) -> bool:
    if candidate.missing or scenario.key in candidate.left_out:
        return False
    return len(scenario.calls) > 1 or not candidate.only_shared


def _play(scenario: Scenario, candidate: Candidate, scene: RemoteStage, server: PrivateServer) -> Result:
    server.forget()
    return play(scenario, candidate, scene, server.url if candidate.shares and len(scenario.calls) > 1 else None)


def _text(rounds: int) -> str:
    least, most = (round(seconds * 1e3) for seconds in LATENCY)
    times = "One run each" if rounds == 1 else f"{rounds} runs each: the ratios are medians"
    return (
        f"FakeDiscord under uvicorn in a process of its own, new for each run: {least} to {most} ms there and back, a "
        f"global limit of {GLOBAL_LIMIT} in each of its own seconds (where a row says otherwise, clients that have an "
        "option for it are told), every client's processes apart from it and everybody's options as by default. The "
        "server counts: its 429s, the seconds from the first request to the last answer, calls that it did not carry "
        "out or that failed for the caller. Brackets: the ideal in seconds, of one who knows every limit beforehand, "
        "with one way there and back. A hidden limit, which only 429s tell of, a hash that nobody knows yet, a bucket "
        "behind many channels and a global stop cost everybody a 429 or more. Each call of a SyncDiscordClient has a "
        "thread of its own; rows that no thread can play are left out. `asgi-ratelimit fake-discord` plays the same "
        "scenarios for other clients. Where there are several processes, asgi_ratelimit's share a Redis; "
        f"the column beside it is without. {times}."
    )


def title(candidate: Candidate, outcomes: Results) -> str:
    results = (result for runs in outcomes.values() for result in runs.get(candidate, ()))
    version = next((result.version for result in results if result.version), "")
    return f"{candidate.name} {version}".strip()


def _head(scenario: Scenario) -> str:
    return scenario.name if scenario.measure == "extra" else f"{scenario.name} ({scenario.ideal:.2f})"


def cell(scenario: Scenario, results: Sequence[Result] | None, candidate: Candidate) -> str:
    if results is None:
        return candidate.missing or "-"
    failure = next((result.failure for result in results if result.failure), "")
    if failure:
        return f"did not run: {failure}".replace("|", "/")
    if scenario.measure == "extra":
        return f"+{median(result.extra for result in results):.2f} s"
    parts = [_range([result.refused for result in results]), _pace(scenario, results)]
    parts.append(f"{_range([result.lost for result in results])} lost")
    if any(result.twice for result in results):
        parts.append(f"{_range([result.twice for result in results])} twice")
    return ", ".join(parts)


def _pace(scenario: Scenario, results: Sequence[Result]) -> str:
    late = [result for result in results if not result.finished]
    if not late:
        return f"{median(result.ratio for result in results):.2f}"
    outcome = "**deadlock**" if all(result.still for result in late) else f"not done in {scenario.bound:.0f} s"
    return outcome if len(late) == len(results) else f"{outcome} {len(late)} times of {len(results)}"


def _range(numbers: Sequence[int]) -> str:
    least, most = min(numbers), max(numbers)
    return str(least) if least == most else f"{least}-{most}"
