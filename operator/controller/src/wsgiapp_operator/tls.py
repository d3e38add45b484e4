"""Whether a Secret can serve HTTPS, by the rules of the ingress controller. The key stays in memory."""

import base64
import binascii
import os
import ssl
from collections.abc import Mapping
from typing import Any

TLS_TYPE = "kubernetes.io/tls"
MISSING = "does not exist"


def find_tls_fault(secret: Mapping[str, Any] | None) -> str | None:
    """Return what is the matter with a Secret that is to hold a certificate and its key, as a clause."""
    if secret is None:
        return MISSING
    if secret.get("type") != TLS_TYPE:
        return f"is of type {secret.get('type', 'Opaque')} and not {TLS_TYPE}"
    data = secret.get("data") or {}
    try:
        certificate, key = (base64.b64decode(data[name]) for name in ("tls.crt", "tls.key"))
    except (KeyError, binascii.Error):
        return "lacks tls.crt or tls.key"
    try:
        load_chain(certificate + b"\n" + key)
    except (ssl.SSLError, OSError):
        return "has a tls.crt and a tls.key that do not belong together, or are not PEM"
    return None


def load_chain(pem: bytes) -> None:
    """Load a certificate and its key as a server would. Raises SSLError."""
    descriptor = os.memfd_create("tls", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem)
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
