"""The requests to the fake API with their responses, and counts that stay when the record is off."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from email import message_from_bytes
from typing import Any

from starlette.datastructures import Headers

__all__ = ["LoggedRequest", "RequestLog", "json_of"]


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request as the server saw it, in the order in which its limits were counted.

    `path` is without the API's prefix, `at` in seconds of the fake's clock. `status` is that of the response, 0 if the
    connection was dropped; `bucket` the hash that the answer named, `answer` its headers.
    """

    method: str
    path: str
    query: str
    route: str
    status: int
    at: float
    bucket: str | None
    headers: Headers
    body: bytes
    client: str
    answer: Headers

    @property
    def json(self) -> Any:
        """The body read as JSON; {} where there is none."""
        return json_of(self.headers, self.body)

    @property
    def scope(self) -> str | None:
        """The scope of the limit that refused it: "user", "shared" or "global". None if none did, or Cloudflare."""
        return self.answer.get("x-ratelimit-scope")


class RequestLog:
    """All that was seen since it was last reset."""

    def __init__(self, *, keeps: bool) -> None:
        self.keeps = keeps
        self.requests: list[LoggedRequest] = []
        self.refused: list[LoggedRequest] = []
        self.statuses: Counter[int] = Counter()

    def note(self, seen: LoggedRequest) -> None:
        self.statuses[seen.status] += 1
        if self.keeps:
            self.requests.append(seen)
            if seen.status == 429:
                self.refused.append(seen)

    def reset(self) -> None:
        for each in (self.requests, self.refused, self.statuses):
            each.clear()


def json_of(headers: Mapping[str, str], body: bytes) -> Any:
    """The JSON of a body, or of the `payload_json` that accompanies files; {} if there is none that can be read."""
    kind = headers.get("content-type", "")
    if kind.startswith("multipart/"):
        parts = message_from_bytes(b"Content-Type: " + kind.encode("latin-1") + b"\r\n\r\n" + body).walk()
        named = (part for part in parts if part.get_param("name", header="content-disposition") == "payload_json")
        body = next((bytes(part.get_payload(decode=True) or b"") for part in named), b"")
    try:
        return json.loads(body or b"{}")
    except ValueError:
        return {}
