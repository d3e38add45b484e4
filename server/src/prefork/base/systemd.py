"""Socket activation and readiness messages (sd_listen_fds(3), sd_notify(3))."""

import os
import socket
import time
from collections.abc import Mapping
from re import fullmatch

FIRST_PASSED_FD = 3
PASSED = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def passed_descriptors(environment: Mapping[str, str], pid: int) -> tuple[int, ...]:
    """Return the listening sockets systemd passed to this process; pure."""
    if environment.get("LISTEN_PID") != str(pid):
        return ()
    count = environment.get("LISTEN_FDS", "")
    if not fullmatch("[0-9]{1,4}", count):
        return ()
    return tuple(range(FIRST_PASSED_FD, FIRST_PASSED_FD + int(count)))


def own_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what programs that the app starts may have of it: the passed sockets are not theirs; pure."""
    return {name: value for name, value in environment.items() if name not in PASSED}


class Notifier:
    """Reports the state of the service to systemd; does nothing without NOTIFY_SOCKET."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.address = environment.get("NOTIFY_SOCKET", "")
        watchdog = environment.get("WATCHDOG_USEC", "")
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.wants_watchdog = (
            bool(self.address) and bool(fullmatch("[0-9]{1,15}", watchdog)) and mine
        )

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nMAINPID={os.getpid()}\nSTATUS={status}")

    def reloading(self) -> None:
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def alive(self) -> None:
        if self.wants_watchdog:
            self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        if not self.address:
            return
        # A leading @ stands for the NUL of an abstract socket.
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            try:
                sender.sendto(text.encode(), socket.MSG_DONTWAIT, address)
            except OSError:
                return
