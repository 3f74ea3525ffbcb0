"""What the commands write: sentences, tables and JSON, readable without colours and safe on a terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import typer
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from asgi_ratelimit.shown import one_line

__all__ = ["console", "draw", "duration", "rows_of", "write", "write_json"]

_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"))


def console(*, is_error: bool = False) -> Console:
    """A console that takes no text of a user's for markup."""
    return Console(stderr=is_error, markup=False, highlight=False, emoji=False)


def write(text: str, *, style: str = "", is_error: bool = False) -> None:
    """A paragraph, wrapped at words on a terminal, and one line in a pipe."""
    out = console(is_error=is_error)
    out.print(Text(one_line(text), style), soft_wrap=not out.is_terminal)


def draw(table: RenderableType) -> None:
    """A table, or several, in a pipe without blanks at the ends of its lines."""
    out = console()
    if out.is_terminal:
        out.print(table)
        return
    with out.capture() as capture:
        out.print(table)
    typer.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def write_json(value: Any) -> None:
    """One line of JSON."""
    typer.echo(json.dumps(value))


def rows_of(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[str] = ()) -> Table:
    """A table without lines; the columns in `numbers` stand on the right."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for name in head:
        table.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(one_line, row))
    return table


def duration(seconds: float) -> str:
    """Seconds as people write them: "0.35 s", "4 min 10 s", "2 h"; rounded up, so that it is not too early."""
    if seconds < 60:
        milliseconds = -(-seconds * 1000 // 1)
        return f"{milliseconds / 1000:.3g} s" if seconds < 10 else f"{-(-seconds // 1):.0f} s"
    left = int(-(-seconds // 1))
    parts = []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join([*parts, *([f"{left} s"] if left else [])][:2])
