"""The same limiter without an event loop, for scripts, Celery workers and WSGI apps.

limiter          SyncLimiter
loop_thread      an event loop in a daemon thread, for calls that have to wait; SyncDiscordClient uses it as well
daemon_executor  the blocking functions of that loop, e.g. the look-up of a name
thread_result    the result that a thread waits for
"""

from asgi_ratelimit.sync.limiter import SyncLimiter

__all__ = ["SyncLimiter"]
