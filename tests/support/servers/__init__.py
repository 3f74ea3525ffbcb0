"""Real servers for the tests, started without root: single, in clusters, under sentinels, behind a faulty proxy."""

from __future__ import annotations

from tests.support.servers.binaries import KINDS
from tests.support.servers.cluster import Cluster
from tests.support.servers.proxy import Proxy
from tests.support.servers.sentinel import Sentinels
from tests.support.servers.server import Server, wait_until
from tests.support.servers.tls import tls_options

__all__ = ["KINDS", "Cluster", "Proxy", "Sentinels", "Server", "tls_options", "wait_until"]
