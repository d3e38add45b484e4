"""Where large request bodies and unread responses are kept on disk: which directory, and whether it can be used."""

import os
import tempfile


def resolve(configured: str) -> str:
    """Return the directory of the spool, absolute: the configured one, else $TMPDIR, else /tmp."""
    return os.path.abspath(configured or os.environ.get("TMPDIR") or "/tmp")


def explain_unusable(directory: str) -> str | None:
    """Return why no file can be created in `directory`; None when one can."""
    try:
        with tempfile.TemporaryFile(dir=directory):
            return None
    except OSError as error:
        return f"{directory}: {error.strerror}"
