"""How fast to begin: limits for bulk work with libraries that find out about Discord's buckets by running into them.

Discord does not publish these figures, changes them at will and asks everybody not to hard-code them; they were
measured by those who write such libraries. Each limit here never lets more pass in any window, wherever it opens, and
leaves a tenth of a second or more for latency that varies. A DiscordClient needs none: it reads what the answers say.
https://discord.com/developers/docs/topics/rate-limits
"""

from __future__ import annotations

from typing import Final

from asgi_ratelimit.limits import SlidingWindow

__all__ = ["BULK_DELETE", "DELETE", "MESSAGES", "REACTIONS"]

MESSAGES: Final = SlidingWindow("5/5500ms")
"""Messages to one channel: 5 per 5 s. https://github.com/discord/discord-api-docs/issues/20,
https://javacord.org/wiki/advanced-topics/ratelimits.html"""

REACTIONS: Final = SlidingWindow("1/350ms")
"""Reactions added and removed in one channel: 1 per 0.25 s. https://github.com/discord/discord-api-docs/issues/182,
https://javacord.org/wiki/advanced-topics/ratelimits.html"""

DELETE: Final = SlidingWindow("5/1100ms")
"""Messages of one channel deleted one by one: 5 per 1 s where they are new, somewhat more later.
https://github.com/discord/discord-api-docs/issues/8330"""

BULK_DELETE: Final = SlidingWindow("1/1100ms")
"""Bulk deletes, of 2 to 100 messages each and none older than 14 days: 1 per 1 s in a whole guild.
https://github.com/discord/discord-api-docs/issues/40, https://github.com/discord/discord-api-docs/pull/372"""
