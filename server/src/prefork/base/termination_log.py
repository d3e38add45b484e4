"""The container's termination message (Kubernetes: terminationMessagePath)."""

from pathlib import Path

TERMINATION_LOG = Path("/dev/termination-log")
# The kubelet takes no more (4096 bytes).
LIMIT_BYTES = 4000


def write_termination_message(text: str) -> None:
    """Write the end of `text` where the kubelet looks for it; outside a pod nothing happens."""
    if not TERMINATION_LOG.exists():
        return
    try:
        TERMINATION_LOG.write_bytes(text.encode("utf-8", "replace")[-LIMIT_BYTES:])
    except OSError:
        return
