"""What others log about our calls, without tokens: httpx writes each address at INFO, webhook tokens included."""

from __future__ import annotations

import logging

from asgi_ratelimit.discord.routes import redacted

__all__ = ["keep_tokens_out"]


class _WithoutTokens(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        masked = redacted(message)
        if masked != message:
            record.msg, record.args = masked, None
        return True


def keep_tokens_out(*names: str) -> None:
    """Have the loggers of these names write "***" for every token."""
    for name in names:
        logger = logging.getLogger(name)
        if not any(isinstance(known, _WithoutTokens) for known in logger.filters):
            logger.addFilter(_WithoutTokens())
