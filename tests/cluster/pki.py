"""Makes the cluster's certificate authority, its certificates and the service account key by openssl."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.cluster.commands import run
from tests.cluster.node import Certificate

DAYS = "3650"
# What a strict check of RFC 5280 asks for; Python's default since 3.13.
EXTENSIONS = """\
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth,clientAuth
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
"""


def write_pki(pki: Path, certificates: Iterable[Certificate]) -> None:
    """Write what is missing: `ca`, each certificate's `.crt` and `.key`, `service-account`."""
    pki.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not (pki / "service-account.pub").exists():
        # RSA: tokens are signed RS256 and accepted by every verifier.
        run(["openssl", "genrsa", "-out", pki / "service-account.key", "2048"])
        key = pki / "service-account.key"
        run(["openssl", "rsa", "-in", key, "-pubout", "-out", pki / "service-account.pub"])
    if not (pki / "ca.crt").exists():
        _new_key(pki / "ca.key")
        request = ["openssl", "req", "-x509", "-new", "-days", DAYS, "-subj", "/CN=wsgiapp-cluster"]
        usage = "keyUsage=critical,keyCertSign,cRLSign"
        run([*request, "-addext", usage, "-key", pki / "ca.key", "-out", pki / "ca.crt"])
    for certificate in certificates:
        if not (pki / f"{certificate.name}.crt").exists():
            _issue(pki, certificate)


def _new_key(path: Path) -> None:
    run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path])
    path.chmod(0o600)


def _issue(pki: Path, certificate: Certificate) -> None:
    key, out = pki / f"{certificate.name}.key", pki / f"{certificate.name}.crt"
    organization = f"/O={certificate.organization}" if certificate.organization else ""
    _new_key(key)
    with tempfile.TemporaryDirectory(dir=pki) as scratch:
        request, extensions = Path(scratch) / "csr", Path(scratch) / "ext"
        names = ",".join(certificate.alternative_names)
        extensions.write_text(EXTENSIONS + (f"subjectAltName={names}\n" if names else ""))
        subject = f"{organization}/CN={certificate.common_name}"
        run(["openssl", "req", "-new", "-key", key, "-subj", subject, "-out", request])
        authority: list[str | Path] = [
            "-CA",
            pki / "ca.crt",
            "-CAkey",
            pki / "ca.key",
            "-CAcreateserial",
        ]
        sign: list[str | Path] = [
            "openssl",
            "x509",
            "-req",
            "-days",
            DAYS,
            "-extfile",
            extensions,
            *authority,
        ]
        run([*sign, "-in", request, "-out", out])
