"""Digest of a directory's content (docs/contracts.md, section 4).

The operator computes the same digest from a ConfigMap or a Secret; the vectors in
`tests/golden/content_digest.json` hold for both. What a Secret holds is named by a keyed digest, since a
plain one shows what a short or guessable value is (docs/decisions/0025).
"""

from collections.abc import Mapping
from pathlib import Path

# What the operator adds to its copy of a content, to say what the copy is good for (section 5).
LAST_GOOD = "wsgi.dev.last-good"
LEFT_OUT = ("__pycache__", LAST_GOOD)
# In a version of a content whose digest is keyed: the key.
KEY = "..digest-key"


def digest_files(files: Mapping[str, bytes]) -> str:
    """Return the SHA-256, hex, over files by name; pure.

    Sorted by name as UTF-8 bytes, each as name NUL decimal-length NUL bytes.
    """
    import hashlib  # OpenSSL, in the memory of all who digest nothing

    digest = hashlib.sha256()
    for name in sorted(files, key=encode):
        digest.update(b"%s\0%d\0" % (encode(name), len(files[name])))
        digest.update(files[name])
    return digest.hexdigest()


def with_key(digest: str, key: bytes) -> str:
    """Return HMAC-SHA-256, hex, of a digest under `key`; the digest itself where that is empty. Pure."""
    import hmac

    return hmac.digest(key, digest.encode(), "sha256").hex() if key else digest


def encode(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def digest_directory(folder: Path) -> str:
    """Return the digest of the regular files directly in `folder`, keyed where it has a key. Raises OSError."""
    return with_key(digest_files(read_directory(folder)), read_key(folder))


def read_key(folder: Path) -> bytes:
    """Return the key in a version of a content; empty where its digest is a plain one."""
    try:
        return (folder / KEY).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return b""


def read_directory(folder: Path) -> dict[str, bytes]:
    """Return the content of the regular files directly in `folder` by name, symlinks followed.

    A ConfigMap mount is a set of symlinks into a directory `..data` that is swapped whole. If that
    happens while the files are read, some vanish or a mixture is seen: hence read again until the
    links did not change in between. Raises OSError when the directory cannot be read.
    """
    while True:
        before = data_version(folder)
        try:
            files = {
                entry.name: entry.read_bytes()
                for entry in folder.iterdir()
                if not entry.name.startswith("..")
                and entry.name not in LEFT_OUT
                and entry.is_file()
            }
        except FileNotFoundError:
            if before == data_version(folder):
                raise
            continue
        if before == data_version(folder):
            return files


def data_version(folder: Path) -> str:
    """Return where a mounted volume's `..data` points; empty for an ordinary directory."""
    try:
        return str((folder / "..data").readlink())
    except OSError:
        return ""


def parse_content(pairs: tuple[str, ...]) -> dict[str, Path]:
    """Return NAME=DIR pairs (already checked) by name."""
    return {name: Path(folder) for name, _, folder in (pair.partition("=") for pair in pairs)}
