"""Secrets of type kubernetes.io/tls → files for nginx; what is not a certificate with its key is left out."""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

FOLDER = Path("/tmp/tls")


def write_certificates(
    secrets: Iterable[Mapping[str, Any]], folder: Path = FOLDER
) -> dict[tuple[str, str], str]:
    """Return the file of each valid Secret, by (namespace, name).

    A file is named by its content: a renewed certificate changes the configuration.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = {}
    for secret in secrets:
        metadata, data = secret["metadata"], secret.get("data") or {}
        try:
            parts = [base64.b64decode(data[key]) for key in ("tls.crt", "tls.key")]
            pem = b"\n".join(parts)
            file = folder / f"{hashlib.sha256(pem).hexdigest()}.pem"
            file.write_bytes(pem)
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(file)
        except (KeyError, binascii.Error, ssl.SSLError) as error:
            logger.warning(
                "Secret %s/%s is refused: %r", metadata["namespace"], metadata["name"], error
            )
        else:
            files[metadata["namespace"], metadata["name"]] = str(file)
    return files
