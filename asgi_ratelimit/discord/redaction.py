"""Texts and logs without tokens: httpx writes each address at INFO, with a webhook's token in it."""

from __future__ import annotations

import logging
import re
from typing import Final
from urllib.parse import unquote

__all__ = ["install_log_filters", "redacted"]

_LOGGERS: Final = (
    "httpx", "hpack.hpack", "hpack.table",
    *(f"httpcore.{name}" for name in ("connection", "http11", "http2", "proxy", "socks")),
)  # fmt: skip

# The characters that end a token, and the punctuation around an address that is no part of it.
_TOKEN: Final = r"[^\s/'\"<>?#]*[^\s/'\"<>?#,.;:!)\]}|]"
_START: Final = r"(?<![\w%-])"  # and not in the middle of percent-encoded text: that is decoded first
_SECRETS: Final = tuple(
    re.compile(f"({prefix}){secret}")
    for prefix, secret in (
        (r"(?i:webhooks|interactions)/++\d++/++(?!\{)", _TOKEN),
        (r"(?i:webhooks|interactions)/++(?:[^\s/'\"<>?#]++/++)?", r"[A-Za-z0-9_-]{40,}"),
        (r"(?i:authorization)\W{1,6}(?:b['\"])?(?i:bot|bearer|basic)\s+", r"[^\s'\",;]+"),
        (r"\A(?:Bot|Bearer)\s+", r"\S+\Z"),
        (r"['\"](?:Bot|Bearer)\s+", r"[^\s'\"]+(?=['\"])"),
        (r"\b(?:Bot|Bearer)\s+(?=[\w.~-]*\d)(?=[\w.~-]*[A-Za-z])", r"[\w.~-]{16,}"),
        (_START, r"aW50ZXJhY3Rpb246[A-Za-z0-9_-]+"),  # every interaction token's beginning: "interaction:"
        (_START, r"[A-Za-z0-9_-]{23,28}\.[A-Za-z0-9_-]{6,7}\.[A-Za-z0-9_-]{27,}"),  # a bot token's three parts
    )
)
_CHUNK: Final = re.compile(r"[^\s'\"<>]+")


def redacted(text: str) -> str:
    """`text` with the tokens of webhooks, interactions and their follow-ups, and of bots and users, as "***".

    The text may be an address, a log line or an error's message. Percent-encoded text is decoded if that reveals a
    token. All other text stays as it is.
    """
    text = _masked(text)
    return _CHUNK.sub(_revealed, text) if "%" in text else text


def _masked(text: str) -> str:
    for secret in _SECRETS:
        text = secret.sub(r"\1***", text)
    return text


def _revealed(chunk: re.Match[str]) -> str:
    """An encoded address, decoded and masked if it holds a token, else as it was."""
    text, hidden = chunk[0], False
    for _ in range(4):
        decoded = unquote(text)
        text = _masked(decoded)
        hidden = hidden or text != decoded
    return text if hidden else chunk[0]


def install_log_filters() -> None:
    """Have the loggers of httpx and its parts write "***" for every token. A second call changes nothing."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(present, _WithoutTokens) for present in logger.filters):
            logger.addFilter(_WithoutTokens())


class _WithoutTokens(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        masked = redacted(message)
        if masked != message:
            record.msg, record.args = masked, None
        return True
