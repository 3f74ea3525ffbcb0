"""The guard of a log-in: failed attempts are limited by account and by address.

guard          LoginGuard: its options, and the verbs for the app
attempt        one attempt, as a context manager; admission: how it is admitted and counted
failures       the failures of accounts, or of addresses; held: attempts that wait for the results of others
familiar       the addresses and devices that an account knows
operated       the failures as an operator sees them
account_names  the name of an account in the store
fastapi        GuardedLogin: the same as a dependency                                             (extra: fastapi)
"""

from asgi_ratelimit.login.account_names import fold_account
from asgi_ratelimit.login.attempt import Attempt
from asgi_ratelimit.login.guard import LoginGuard

__all__ = ["Attempt", "LoginGuard", "fold_account"]
