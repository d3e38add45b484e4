"""A loopback of the benchmark's own, so that the machine's packet filter does not cost the servers.

On a machine that runs containers every loopback packet passes their nftables rules and connection
tracking, which can cost more than the server itself; inside a pod there are none.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import sys

_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1


def enter_own_network() -> bool:
    """Move this process, and all it starts, to an empty network namespace with loopback up.

    False, and nothing changed, where that is not allowed (not root) or not known to this Python.
    """
    if sys.version_info < (3, 12):
        return False
    with contextlib.suppress(PermissionError):
        os.unshare(os.CLONE_NEWNET)
        with socket.socket() as any_socket:
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
        return True
    return False
