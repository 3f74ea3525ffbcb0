"""The protocol between this process and the scripts: limits.lua, slots.lua and checks.lua in frame.lua."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha1
from importlib.resources import files
from itertools import chain, groupby
from operator import attrgetter
from typing import Any, Literal, Protocol

from hiredis import pack_command

__all__ = ["CHECKS", "Command", "Question", "Reply", "Script", "Verb", "command", "framed", "shape", "write"]

Verb = Literal["decide", "peek", "refund", "owe", "renew", "reset", "block", "probe"]
Command = tuple[Any, ...]
Reply = list[Any]  # the server's time in µs, then the result of each check, then the number of the call


@dataclass(frozen=True, slots=True, eq=False)
class Script:
    """A script and its SHA, its name in Redis."""

    text: bytes
    sha: str


@lru_cache(maxsize=16)
def framed(source: bytes) -> Script:
    """A script in the frame that all scripts of a server share."""
    text = _file("frame.lua").replace(b"--[[SCRIPT]]", source)
    return Script(text, sha1(text, usedforsecurity=False).hexdigest())


def _file(name: str) -> bytes:
    return files("asgi_ratelimit.redis").joinpath(name).read_bytes()


CHECKS = framed(_file("limits.lua") + _file("slots.lua") + _file("checks.lua"))


class Question(Protocol):
    """One of the checks of a batch."""

    @property
    def keys(self) -> Sequence[str]: ...

    @property
    def shape(self) -> str: ...


_keys_of, _shape_of = attrgetter("keys"), attrgetter("shape")


def shape(verb: str, keys: int, *rest: object) -> str:
    """The text that checks of one kind have in common."""
    return json.dumps([verb, keys, *rest], separators=(",", ":"))


def command(
    questions: Sequence[Question], now: str, script: Script = CHECKS, *, number: int = 0, by_name: bool = True
) -> Command:
    """One call of a script, by its SHA or with its text. Its number is at the end of its reply."""
    keys = [*chain.from_iterable(map(_keys_of, questions))]
    runs = [part for text, run in groupby(map(_shape_of, questions)) for part in (text, len([*run]))]
    call = ("EVALSHA", script.sha) if by_name else ("EVAL", script.text)
    return (*call, len(keys), *keys, now, number, *runs)


def write(*commands: Command) -> bytes:
    """Commands in Redis' protocol."""
    return b"".join([pack_command(each) for each in commands])
