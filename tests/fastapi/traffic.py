"""What the tests of this door send, and how they read what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.testclient import TestClient

DISCORD_ON_SUCCESS = {
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-ratelimit-reset-after",
    "x-ratelimit-bucket",
}
DISCORD_ON_REFUSAL = DISCORD_ON_SUCCESS | {"x-ratelimit-scope", "retry-after", "via"}


def statuses(client: TestClient, *urls: str, **options: Any) -> list[int]:
    """The status of a GET of each URL, one after the other."""
    return [client.get(url, **options).status_code for url in urls]


def limit_names(headers: Mapping[str, str]) -> set[str]:
    """Which headers of a response are about a limit."""
    return {
        n for n in map(str.lower, headers) if n.startswith(("x-ratelimit", "ratelimit")) or n in ("retry-after", "via")
    }


def repeated(response: Any) -> list[str]:
    """The names of the headers that a response carries more than once."""
    names = [name.lower() for name, _ in response.headers.multi_items()]
    return sorted({name for name in names if names.count(name) > 1})


def as_user(name: str) -> dict[str, str]:
    """The header by which these tests tell users apart."""
    return {"x-user": name}
