"""A certificate for one host, made on the spot, and the options with which a server uses it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.support.servers.server import HOST, Option, free_port

DAY = timedelta(days=1)


def tls_options(folder: Path, *, host: str = HOST) -> dict[str, Option]:
    """For a server that speaks TLS beside plain TCP, as Debian's does: Server("redis-7.0", **tls_options(tmp_path)).

    Its certificate is for `host`, an address or a name. It is its own authority.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    key_file, certificate_file = folder / "key.pem", folder / "certificate.pem"
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    certificate_file.write_bytes(_certificate(key, host).public_bytes(Encoding.PEM))
    return {
        "tls_port": free_port(),
        "tls_key_file": str(key_file),
        "tls_cert_file": str(certificate_file),
        "tls_ca_cert_file": str(certificate_file),
        "tls_auth_clients": "no",
    }


def _certificate(key: ec.EllipticCurvePrivateKey, host: str) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - DAY, now + DAY)
    builder = builder.add_extension(x509.SubjectAlternativeName([_alternative(host)]), critical=False)
    return builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, SHA256())


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
