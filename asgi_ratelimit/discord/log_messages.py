"""Log lines as the messages of a webhook: as few as hold them, and none that is too long."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["Message", "Packer"]

LONGEST: Final = 2_000  # of a message; UTF-16 units are counted, which are never fewer than characters
_MOST_MESSAGES: Final = 10  # for one line, e.g. one with a traceback


@dataclass(frozen=True, slots=True)
class Message:
    """The content of one message, and how many lines begin in it."""

    content: str
    lines: int


class Packer:
    """Joins lines to messages. It holds those that do not fill one yet."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = self._lines = 0

    def add(self, text: str, lines: int = 1) -> Iterator[Message]:
        """Add a text that counts as so many lines, and return the messages that are full by that."""
        for part in _parts(text):
            length = _length(part)
            if self._length + length > LONGEST:
                yield from self.take()
            self._parts.append(part)
            self._length, self._lines, lines = self._length + length + 1, self._lines + lines, 0

    def take(self) -> Iterator[Message]:
        """The last message, full or not. There is none without lines."""
        if self._parts:
            message = Message("\n".join(self._parts), self._lines)
            self._parts, self._length, self._lines = [], 0, 0
            yield message


def _parts(text: str) -> Iterator[str]:
    """A line in parts of which each fits into a message. Discord takes no message of blanks."""
    text = text.replace("\0", "").encode("utf-8", "replace").decode().rstrip()
    for _ in range(_MOST_MESSAGES):
        if not text.strip():
            return
        part = text if _length(text) <= LONGEST else _beginning(text)
        if part.strip():
            yield part
        text = text[len(part) :].lstrip("\n")
    if text.strip():
        yield f"(and {len(text)} characters more)"


def _beginning(text: str) -> str:
    """As much of it as fits, up to the end of one of its lines if that is not far."""
    part = text[:LONGEST]
    while _length(part) > LONGEST:
        part = part[: len(part) - (_length(part) - LONGEST + 1) // 2]
    end = part.rfind("\n", len(part) // 2)
    return part if end < 0 else part[:end]


def _length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2
