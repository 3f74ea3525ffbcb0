"""The route of a request to the fake API: templates like "POST /channels/{channel_id}/messages"."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["Routes", "Segments", "Template", "plain_name", "segments_of", "unit_of"]

Value = TypeVar("Value")
Segments = tuple[str, ...]

_NAME = re.compile(r"([A-Z]+) (/\S*)")
_PREFIX = re.compile(r"(?:.*/api/v(\d+)|/api)(?=/|$)", re.DOTALL)
_UNVERSIONED = "6"
_ID = re.compile(r"\d{5,}", re.ASCII)
_TOP_LEVEL = {"channels": 1, "guilds": 1, "webhooks": 2}  # the number of parameters that name the resource


def segments_of(path: str) -> Segments:
    """The segments behind the prefix of the API: ("users", "@me") of "/api/v10/users/@me"."""
    return tuple(_PREFIX.sub("", path, count=1).strip("/").split("/"))


def unit_of(path: str) -> int:
    """How many of its units of time are a second: versions below 8 speak of milliseconds in a 429."""
    prefix = _PREFIX.match(path)
    return 1_000 if prefix is not None and int(prefix[1] or _UNVERSIONED) < 8 else 1


def plain_name(method: str, segments: Segments) -> str:
    """The name of a route that has no template."""
    return f"{method} /" + "/".join("{id}" if _ID.fullmatch(segment) else segment for segment in segments)


class Template:
    """A method and a path with parameters. ValueError if its name reads otherwise."""

    __slots__ = ("_parts", "major", "method", "name", "parameters")

    def __init__(self, name: str) -> None:
        form = _NAME.fullmatch(name) if isinstance(name, str) else None
        if form is None:
            raise ValueError(f'a route is written as "POST /channels/{{channel_id}}/messages", not {name!r}')
        self.name, self.method = name, form[1]
        parts = segments_of(form[2])
        self._parts = tuple((part, part[:1] == "{" and part[-1:] == "}") for part in parts)
        self.parameters = tuple(part[1:-1] for part, varies in self._parts if varies)
        top = self._parts[1 : 1 + _TOP_LEVEL.get(parts[0], 0)]
        self.major = tuple(part[1:-1] for part, varies in top if varies)

    @property
    def place(self) -> tuple[str, int]:
        """Where to look for it: requests of another method or depth are never its own."""
        return self.method, len(self._parts)

    @property
    def openness(self) -> tuple[bool, ...]:
        """The order of templates: a written-out segment goes before a parameter."""
        return tuple(varies for _, varies in self._parts)

    def match(self, method: str, segments: Segments) -> dict[str, str] | None:
        """The parameters of a request to this route; None if it is to another one."""
        if (method, len(segments)) != self.place:
            return None
        parameters = {}
        for (part, varies), segment in zip(self._parts, segments, strict=True):
            if varies and segment:
                parameters[part[1:-1]] = segment
            elif part != segment:
                return None
        return parameters


class Routes(Generic[Value]):
    """Templates, each with a value."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, int], list[tuple[Template, Value]]] = {}

    def add(self, template: Template, value: Value) -> None:
        place = self._places.setdefault(template.place, [])
        place.append((template, value))
        place.sort(key=lambda entry: entry[0].openness)

    def find(self, method: str, segments: Segments) -> tuple[Template, Value, dict[str, str]] | None:
        for template, value in self._places.get((method, len(segments)), ()):
            parameters = template.match(method, segments)
            if parameters is not None:
                return template, value, parameters
        return None

    def __iter__(self) -> Iterator[tuple[Template, Value]]:
        return (entry for place in self._places.values() for entry in place)
