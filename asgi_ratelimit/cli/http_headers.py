"""Headers for requests, as a user writes them on a command line or into a file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import httpx
import typer

__all__ = ["HeaderLines", "headers_of_lines", "without_user"]

HeaderLines = Annotated[
    list[str] | None,
    typer.Option(
        "--header",
        metavar="LINE",
        show_default=False,
        help="A header for the app, such as 'Authorization: Bearer x'. @FILE reads them from a file, one a line, which "
        "keeps them out of the list of processes.",
    ),
]

_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e\x80-\xff\t]*)")


def headers_of_lines(lines: Iterable[str] | None) -> list[tuple[str, str]]:
    """The headers. Raises ValueError if a line is none; it may hold a password, and is not repeated."""
    return [_header(line) for text in lines or () for line in _expanded(text)]


def _expanded(text: str) -> list[str]:
    if not text.startswith("@"):
        return [text]
    try:
        return [line for line in Path(text[1:]).read_text("latin-1").splitlines() if line.strip()]
    except OSError as error:
        raise ValueError(f"the file of headers cannot be read: {error.strerror}: {text[1:]}") from None


def _header(line: str) -> tuple[str, str]:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError("a header is written 'Name: value', e.g. --header 'Authorization: Bearer x'")
    return match[1], match[2].rstrip()


def without_user(url: httpx.URL, headers: httpx.Headers) -> httpx.URL:
    """The URL. Its user and password are left out if a header has others: httpx would send those of the URL."""
    return url.copy_with(username=None, password=None) if "authorization" in headers else url
