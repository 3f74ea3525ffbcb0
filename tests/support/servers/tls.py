"""A certificate for 127.0.0.1, made on the spot, and the options with which a server uses it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.support.servers.binaries import absent
from tests.support.servers.server import HOST, Option, free_port

REQUEST = (
    *("req", "-x509", "-nodes", "-days", "2", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
    *("-subj", f"/CN={HOST}", "-addext", f"subjectAltName=IP:{HOST}"),
)


def tls_options(folder: Path) -> dict[str, Option]:
    """For a server that speaks TLS beside plain TCP, as Debian's does: Server("redis-7.0", **tls_options(tmp_path))."""
    openssl = shutil.which("openssl") or absent("openssl is not installed")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [openssl, *REQUEST, "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    return {
        "tls_port": free_port(),
        "tls_key_file": str(key),
        "tls_cert_file": str(certificate),
        "tls_ca_cert_file": str(certificate),
        "tls_auth_clients": "no",
    }
