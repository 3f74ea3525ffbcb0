"""Patterns of paths: `*` is one segment, `**` any number of them, and a `*` at the end is all below it.

There is no backtracking: each run of segments between two `**` is looked for once, from left to right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final
from urllib.parse import unquote

from starlette._utils import get_route_path
from starlette.types import Scope

__all__ = ["PathPredicate", "app_path", "exempting", "limiting"]

PathPredicate = Callable[[str], bool]

_LONGEST: Final = 4096  # characters of a path that is compared
_MOST_SEGMENTS: Final = 128
_ANYTHING = "**"
_DOTS = (".", "..")
_PARAMETER = re.compile(r"[{}<>]|^:|^\(?\.[*+]\)?$")  # of the routes of frameworks, or an expression for one
_FOREIGN = frozenset('?#[]|\\^"`')  # no part of a path (RFC 3986 §3.3), but of URLs and regular expressions


def app_path(scope: Scope, root_path: str | None = None) -> str:
    """The path as the app's routes see it, without the prefix of a server or a mount (`root_path`: another prefix)."""
    path, prefix = str(scope.get("path", "")), scope.get("root_path") if root_path is None else root_path
    return get_route_path({"path": path, "root_path": prefix}) if prefix else path


def exempting(paths: Iterable[str]) -> PathPredicate:
    """The predicate for paths that are not counted. A path that some server reads as another one is not among them."""
    patterns = [_Pattern(path, "an exempt path") for path in _listed(paths)]
    exact, starts = _shortcuts(patterns)

    def is_exempt(path: str) -> bool:
        if path in exact:
            return True
        # A router's `.*` does not match a newline, and the next route may get the request.
        if not path.startswith(starts) or _is_too_long(path) or "\n" in path:
            return False
        segments = path.split("/")[1:]
        if not segments or "" in segments[:-1] or not set(segments).isdisjoint(_DOTS):
            return False
        return any(pattern.matches(segments) for pattern in patterns)

    return is_exempt


def limiting(paths: Iterable[str]) -> PathPredicate:
    """The predicate for the only paths that are counted. Each path that some server reads as one of them is one."""
    patterns = [_Pattern(path, "a limited path", loose=True) for path in _listed(paths)]
    if not patterns:
        raise ValueError('only= names the paths that are limited, such as only=("/login",); without one nothing is')
    exact, starts = _shortcuts(patterns)

    def is_limited(path: str) -> bool:
        path = path.lower()
        if path in exact or _is_too_long(path):
            return True
        if path.startswith(starts) or "//" in path or "/." in path or not path or path[-1] in "/\n":
            return any(pattern.matches(segments) for segments in _readings(path) for pattern in patterns)
        return False

    return is_limited


class _Pattern:
    """The segments of a pattern, in runs between which there may be any others. `start`: its text without a star."""

    __slots__ = ("_runs", "is_exact", "start")

    def __init__(self, path: object, kind: str, *, loose: bool = False) -> None:
        segments = _segments_of(path, kind)
        if loose:
            segments = [segment.lower() for segment in segments]
            if len(segments) > 1 and segments[-1] == "":
                segments.pop()  # routers redirect from a slash at the end, or ignore it
        self.start, star, _ = f"/{'/'.join(segments)}".partition("*")
        self.is_exact = not star
        self._runs: list[list[str]] = [[]]
        for segment in segments:
            if segment == _ANYTHING:
                self._runs.append([])
            else:
                self._runs[-1].append(segment)

    def matches(self, segments: Sequence[str]) -> bool:
        """Whether the runs follow each other in these segments, the first at the start and the last at the end."""
        first, last = self._runs[0], self._runs[-1]
        position, end = len(first), len(segments) - len(last)
        if len(self._runs) == 1:
            return end == 0 and _fits(first, segments, 0)
        if position > end or not _fits(first, segments, 0) or not _fits(last, segments, end):
            return False
        for run in self._runs[1:-1]:
            found = next((at for at in range(position, end - len(run) + 1) if _fits(run, segments, at)), None)
            if found is None:
                return False
            position = found + len(run)
        return True


_ONE_OR_NONE = "/"  # in place of a segment: any one of them, also an empty one


def _segments_of(path: object, kind: str) -> list[str]:
    """The segments of a pattern. Raises ValueError if no path has such segments."""
    if not isinstance(path, str) or not path.startswith(("/", "*")):
        raise ValueError(f'{kind} looks like "/health", "/static/*" or "/users/*/avatar", not {path!r}')
    if _with_stars(path) != path:
        raise ValueError(f"{kind} has * for a part of it, such as {_with_stars(path)!r}, not {path!r}")
    if unquote(path) != path:
        raise ValueError(f"{kind} is written without escapes, as the app sees it: {unquote(path)!r}, not {path!r}")
    if not _FOREIGN.isdisjoint(path) or path != path.strip():
        raise ValueError(f'{kind} is neither a URL nor an expression: it looks like "/static/*", not {path!r}')
    segments = path[1:].split("/") if path.startswith("/") else [_ANYTHING, *path.removeprefix("*/").split("/")]
    if any(_ANYTHING in part and part != _ANYTHING for part in segments):
        raise ValueError(f'{kind} has ** only between slashes, such as "/files/**/*.png", not {path!r}')
    if "" in segments[:-1] or not set(segments).isdisjoint(_DOTS):
        raise ValueError(f'{kind} has neither // nor dots, such as "/files/*", not {path!r}')
    if segments[-1] in ("*", _ANYTHING):
        segments[-1:] = [_ANYTHING, _ONE_OR_NONE]
    return segments


def _with_stars(path: str) -> str:
    """`/items/{id}` as `/items/*`. So are `/items/<id>`, `/items/:id` and `/items/.*`."""
    return "/".join("*" if _PARAMETER.search(part) else part for part in path.split("/"))


def _fits(run: Sequence[str], segments: Sequence[str], at: int) -> bool:
    return all(_is_like(pattern, segments[at + i]) for i, pattern in enumerate(run))


def _is_like(pattern: str, segment: str) -> bool:
    """Whether a segment has the pieces of a pattern between its stars, one after the other."""
    if pattern == _ONE_OR_NONE:
        return True
    start, *pieces = pattern.split("*")
    if not pieces:
        return segment == start
    end = pieces.pop()
    if pattern == "*" or len(segment) < len(start) + len(end):
        return pattern == "*" and segment != ""
    if not segment.startswith(start) or not segment.endswith(end):
        return False
    position, last = len(start), len(segment) - len(end)
    for piece in pieces:
        position = segment.find(piece, position, last)
        if position < 0:
            return False
        position += len(piece)
    return True


def _is_too_long(path: str) -> bool:
    return len(path) > _LONGEST or path.count("/") > _MOST_SEGMENTS


def _shortcuts(patterns: Iterable[_Pattern]) -> tuple[frozenset[str], tuple[str, ...]]:
    """The paths without a star, and the texts with which the others begin."""
    exact = frozenset(pattern.start for pattern in patterns if pattern.is_exact)
    return exact, tuple(pattern.start for pattern in patterns if not pattern.is_exact)


def _readings(path: str) -> Iterator[list[str]]:
    """The segments of a path: as they are, without empty ones, and without dots.

    A newline at its end is no part of it: `$` in the expressions of routers matches before one.
    """
    segments = path.removesuffix("\n").split("/")[1:] or [""]
    yield segments
    if "" in segments or not set(segments).isdisjoint(_DOTS):
        full = [segment for segment in segments if segment]
        yield full or [""]
        yield _without_dots(full) or [""]


def _without_dots(segments: Iterable[str]) -> list[str]:
    resolved: list[str] = []
    for segment in segments:
        if segment == "..":
            resolved[-1:] = []
        elif segment != ".":
            resolved.append(segment)
    return resolved


def _listed(paths: Iterable[str]) -> Iterable[str]:
    return (paths,) if isinstance(paths, str) else tuple(paths)
