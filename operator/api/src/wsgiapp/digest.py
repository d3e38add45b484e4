"""Digest of a ConfigMap's or Secret's content, as the server takes it of the mounted folder.

The server computes it from files (docs/contracts.md §4); here it comes from the object, so that both
sides agree without talking. Vectors: tests/golden/content_digest.json.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

from wsgiapp.names import LAST_GOOD_KEY

# What the server leaves out as well; the key is what a last good copy has more than its content.
IGNORED = (b"__pycache__", LAST_GOOD_KEY.encode())


def digest_object(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256, hex, of a ConfigMap's or Secret's files: sorted by name in UTF-8, each as
    name NUL decimal-length NUL content."""
    files: dict[bytes, bytes] = {}
    if manifest["kind"] == "Secret":
        encoded = manifest.get("data") or {}
    else:
        encoded = manifest.get("binaryData") or {}
        files |= {n.encode(): text.encode() for n, text in (manifest.get("data") or {}).items()}
    files |= {n.encode(): base64.b64decode(content) for n, content in encoded.items()}
    return digest_files(files)


def digest_files(files: Mapping[bytes, bytes]) -> str:
    """Return the digest of files by name; names that begin with `..` are Kubernetes' own links."""
    digest = hashlib.sha256()
    for name in sorted(files):
        if name.startswith(b"..") or name in IGNORED:
            continue
        content = files[name]
        digest.update(name + b"\0" + str(len(content)).encode() + b"\0" + content)
    return digest.hexdigest()


def with_key(digest: str, key: bytes) -> str:
    """Return HMAC-SHA-256, hex, of a digest under `key`, by which the content of a Secret is named.

    A plain digest of a short or guessable value gives it away to all who may read status and annotations.
    """
    return hmac.digest(key, digest.encode(), "sha256").hex()


def digest_json(value: Any, length: int = 16) -> str:
    """Return the first `length` hex digits of the SHA-256 of `value` in canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:length]
