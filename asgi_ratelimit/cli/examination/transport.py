"""Whether the traffic to a Redis can be read on the way."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from asgi_ratelimit.cli.examination.findings import Finding
from asgi_ratelimit.cli.loopback import is_loopback

__all__ = ["transport_of"]

_UNCHECKED = ("none", "cert_none", "0")


def transport_of(url: str) -> Finding:
    """Whether it is encrypted, and with a certificate that is checked."""
    split = urlsplit(url)
    if split.scheme == "unix":
        return Finding("ok", "transport", "A socket of this machine.")
    if not split.scheme.startswith("rediss"):
        if all(is_loopback(host) for host in _hosts(split.netloc)):
            return Finding("ok", "transport", "Plain text, within this machine.")
        says = "Plain text: who can read the network can read the password of the URL."
        return Finding("warning", "transport", says, "Use rediss:// unless the network is the servers' own.")
    options = {name: values[-1].lower() for name, values in parse_qs(split.query).items()}
    if options.get("ssl_cert_reqs", "") in _UNCHECKED:
        says = "TLS, but the certificate is not checked: another server may take its place."
        return Finding("warning", "transport", says, "Use ?ssl_ca_certs= instead of ssl_cert_reqs=none.")
    return Finding("ok", "transport", "TLS, with a certificate that is checked.")


def _hosts(netloc: str) -> list[str]:
    return [urlsplit(f"//{part}").hostname or "localhost" for part in netloc.rpartition("@")[2].split(",")]
