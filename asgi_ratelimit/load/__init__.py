"""Overload: an app that gets more requests than it can bear serves what it can, and refuses the rest at once.

middleware   LoadShedMiddleware: lets requests in, or sheds them
flight       one request, from the call of the app to the start of its response
turns        how many begin in each turn of the event loop
controller   how many may be in flight; classes: how many for each class of importance
baselines    the times of requests when nothing waits; dips: moments in which that is measured
loop_lag     how late an event loop is; server_load: how busy it is
responses    the 503
"""

from asgi_ratelimit.load.classes import PriorityFunction
from asgi_ratelimit.load.middleware import LoadShedMiddleware
from asgi_ratelimit.load.server_load import server_load

__all__ = ["LoadShedMiddleware", "PriorityFunction", "server_load"]
