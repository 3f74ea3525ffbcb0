"""Real servers for the tests, started without root: single, in clusters, under sentinels, behind a faulty proxy."""

from __future__ import annotations

from tests.servers.binaries import KINDS
from tests.servers.cluster import Cluster
from tests.servers.proxy import Proxy
from tests.servers.sentinel import Sentinels
from tests.servers.server import Server, wait_until
from tests.servers.tls import tls_options

__all__ = ["KINDS", "Cluster", "Proxy", "Sentinels", "Server", "tls_options", "wait_until"]
