"""How a command runs: quietly, and with each error as one sentence and an exit code."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import warnings
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn, TypeVar

import typer

from asgi_ratelimit.cli.screen import write
from asgi_ratelimit.errors import RateLimitWarning, StoreUnavailable

__all__ = ["INTERRUPTED", "UNWELL", "USAGE", "NoAnswer", "cause_of", "end", "run", "sentences"]

_CONNECTING = re.compile(r"Error (?:([0-9]+) )?(?:[^ ]+ )?connecting to [^ ]+ (.*)")  # as redis-py has it

Result = TypeVar("Result")

UNWELL: Final = 1  # the subject is not well
USAGE: Final = 2  # the command was called wrongly
INTERRUPTED: Final = 130  # by Ctrl-C, as shells have it


def end(text: str, code: int) -> NoReturn:
    """Say why on stderr, and leave."""
    write(text, style="red", is_error=True)
    raise typer.Exit(code)


class NoAnswer(Exception):
    """The subject does not answer. Its text is a sentence for the user."""


@contextmanager
def sentences() -> Iterator[None]:
    """Each error is a sentence and an exit code."""
    try:
        yield
    except (ValueError, ImportError) as error:
        end(str(error), USAGE)
    except (StoreUnavailable, NoAnswer) as error:
        end(str(error), UNWELL)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def cause_of(error: object) -> str:
    """Why a connection failed, in a few words and on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    connecting = _CONNECTING.fullmatch(text)
    if connecting is None:
        return re.sub(r"\[Errno -?[0-9]+\] ", "", text).rstrip(".")
    number, rest = connecting.groups()
    return rest.rstrip(".") if "SSL" in rest or number is None else os.strerror(int(number))


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """The result of a coroutine. What the package logs and warns of meanwhile is left out: the command says it."""
    with _no_log(), warnings.catch_warnings():
        warnings.simplefilter("ignore", RateLimitWarning)
        return asyncio.run(work)


@contextmanager
def _no_log() -> Iterator[None]:
    """Python writes the rest to stderr."""
    logger, handler = logging.getLogger("asgi_ratelimit"), logging.NullHandler()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
