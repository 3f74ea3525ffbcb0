"""The endpoint to which Discord posts a bot's interactions: verified first, then limited.

endpoint   InteractionLimit
body       its body: bounded in size, time and number
failures   the limit of requests that cannot be verified
replays    whether a message was seen before
responses  the responses in place of the endpoint's own
signature  whether a request is signed by Discord
keys       the key of an interaction's bucket
messages   the text that a limited user reads
"""

try:
    import cryptography as _cryptography  # noqa: F401
except ImportError as error:
    raise ImportError(
        "asgi_ratelimit.interactions needs cryptography: pip install 'asgi-ratelimit-discord[interactions]'"
    ) from error

from asgi_ratelimit.interactions.endpoint import InteractionLimit
from asgi_ratelimit.interactions.keys import Interaction, InteractionKey
from asgi_ratelimit.interactions.messages import Text, Unavailable

__all__ = ["Interaction", "InteractionKey", "InteractionLimit", "Text", "Unavailable"]
