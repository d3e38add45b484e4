"""Self-signed certificates for tests, by openssl."""

from __future__ import annotations

import subprocess


def make_certificate(host: str) -> tuple[bytes, bytes]:
    """Return certificate and key for a host name, both PEM; each call makes another key."""
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-days", "7", "-subj", f"/CN={host}"[:64], "-addext", f"subjectAltName=DNS:{host}",
        "-keyout", "/dev/stdout", "-out", "/dev/stdout",
    ]  # fmt: skip
    pem = subprocess.run(command, check=True, capture_output=True).stdout
    start = pem.index(b"-----BEGIN CERTIFICATE-----")
    return pem[start:], pem[:start]
