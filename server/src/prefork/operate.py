"""`prefork status`, `reload`, `stop`: one question over the control socket of a running server (docs/contracts.md, section 4)."""

import contextlib
import json
import os
import socket
import stat
import struct
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefork.base.log import escape_controls
from prefork.base.run_dir import CONTROL, temporary_folder
from prefork.base.standard_output import write_out
from prefork.config.command_line import Parser
from prefork.errors import Exit, StartupError

OPERATIONS = {
    "status": "Print the state of a running server as JSON.",
    "reload": "Reload the app of a running server; wait for the result.",
    "stop": "Stop a running server gracefully; wait for its end.",
}
# A server answers a status at once, except while it reads a config file: that has a limit of its own, which is shorter.
ANSWER_S = 15.0
# While a reload or a stop is awaited, which may take as long as its settings allow: how often the server is asked
# whether it is still there.
ASK_AGAIN_S = 2.0
CONNECT_RETRY_S = 0.05


class Server:
    """A connection to the control socket of a running server."""

    def __init__(self, control: Path) -> None:
        self.control = control
        self.sock = connect(control)
        self.received = b""

    def close(self) -> None:
        self.sock.close()

    def send(self, question: Mapping[str, Any]) -> None:
        # A server that has just ended is noticed by whoever receives.
        with contextlib.suppress(BrokenPipeError):
            self.sock.sendall(json.dumps(question).encode() + b"\n")

    def receive(self, within_s: float = ANSWER_S) -> dict[str, Any] | None:
        """Return the next answer; None when the server has ended.

        Raises StartupError where no answer comes in time, and where the server rejects the question.
        """
        deadline = time.monotonic() + within_s
        while b"\n" not in self.received:
            self.sock.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self.sock.recv(65536)
            except TimeoutError:
                raise StartupError(describe_silence(self.control), Exit.ENVIRONMENT) from None
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self.received += data
        line, _, self.received = self.received.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise StartupError(f"the server rejects it: {answer['error']}")
        return answer

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        self.send(question)
        return self.require(self.receive())

    def require(self, answer: dict[str, Any] | None) -> dict[str, Any]:
        if answer is None:
            raise StartupError(
                f"run_dir is {self.control.parent}; the server there ended before it had answered",
                Exit.ENVIRONMENT,
            )
        return answer

    def receive_while_alive(self) -> Iterator[dict[str, Any] | None]:
        """Yield the answers that come, however late, for as long as the server answers a status in between."""
        while True:
            self.send({"op": "status"})
            answer = self.receive()
            yield answer
            if b"\n" not in self.received:
                self.wait_readable(ASK_AGAIN_S)

    def wait_readable(self, within_s: float) -> None:
        self.sock.settimeout(within_s)
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            self.sock.recv(1, socket.MSG_PEEK)


def operate(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Carry out one of OPERATIONS, the first argument; return the exit code."""
    operation, *rest = arguments
    control = find_control(parse_run_dir(operation, rest, environment), operation, environment)
    with contextlib.closing(Server(control)) as server:
        match operation:
            case "reload":
                return report_reload(reload(server))
            case "stop":
                return stop(server)
            case _:
                write_out(json.dumps(server.ask({"op": "status"}), indent=2))
                return Exit.OK


def reload(server: Server) -> dict[str, Any]:
    """Return the result of a reload."""
    # Not the pid: two containers that share a run directory have the same ones, and the server takes requests with
    # one id for the same.
    server.send({"op": "reload", "id": f"reload-{os.urandom(6).hex()}"})
    for answer in server.receive_while_alive():
        if "result" in server.require(answer):
            break
    return server.require(answer)


def stop(server: Server) -> int:
    """Wait until the server has ended: its connection ends with it."""
    server.ask({"op": "stop"})
    for answer in server.receive_while_alive():
        if answer is None:
            break
    return Exit.OK


def parse_run_dir(operation: str, arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    parser = Parser(
        prog=f"prefork {operation}", description=OPERATIONS[operation], allow_abbrev=False
    )
    parser.add_argument(
        "--run-dir",
        metavar="DIR",
        default=environment.get("PREFORK_RUN_DIR", ""),
        help="the server's --run-dir; without it, the only server of this user that has none",
    )
    known, unknown = parser.parse_known_args(arguments)
    if unknown:
        raise StartupError(
            f"prefork {operation} does not take {unknown[0]}; {serve_hint(operation)}"
        )
    return str(known.run_dir)


def serve_hint(operation: str) -> str:
    return f"to serve a module of that name, write prefork {operation}:application"


def find_control(run_dir: str, operation: str, environment: Mapping[str, str]) -> Path:
    """Return the control socket of the server that is meant."""
    if run_dir:
        return Path(run_dir) / CONTROL
    temporary = temporary_folder()
    bases = dict.fromkeys((environment.get("XDG_RUNTIME_DIR") or temporary, temporary))
    found = [path for base in bases for path in find_folders(base) if is_own_server(path)]
    if len(found) == 1:
        return found[0]
    if found:
        named = ", ".join(str(path.parent) for path in found)
        raise StartupError(f"{len(found)} servers run; name one by --run-dir: {named}")
    raise StartupError(
        f"no running server was found; name its --run-dir ({serve_hint(operation)})",
        Exit.ENVIRONMENT,
    )


def find_folders(base: str) -> list[Path]:
    """Return where the control sockets of servers without --run-dir would be."""
    try:
        names = sorted(os.listdir(base))
    except OSError:
        return []
    return [Path(base) / name / CONTROL for name in names if name.startswith("prefork-")]


def is_own_server(control: Path) -> bool:
    """Whether a process of this user listens there, in a folder that no other user could have made."""
    try:
        folder, file = control.parent.lstat(), control.lstat()
        if not (stat.S_ISDIR(folder.st_mode) and stat.S_ISSOCK(file.st_mode)):
            return False
        if {folder.st_uid, file.st_uid} != {os.getuid()}:
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            probe.connect(str(control))
            return peer_uid(probe) == os.getuid()
    except BlockingIOError:
        return True  # too many are waiting for it to tell: a server that hangs has to be found, too
    except OSError:
        return False


def peer_uid(sock: socket.socket) -> int:
    """Return the user of the process that listens (SO_PEERCRED in unix(7))."""
    credentials = struct.Struct("3i")
    _pid, uid, _gid = credentials.unpack(
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size)
    )
    return int(uid)


def connect(control: Path) -> socket.socket:
    """Return a connection to a control socket, whose queue may be full for a while."""
    deadline = time.monotonic() + ANSWER_S
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.setblocking(False)
    while True:
        try:
            server.connect(str(control))
            return server
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(CONNECT_RETRY_S)
                continue
            why = describe_silence(control)
        except OSError as error:
            why = f"run_dir is {control.parent}; no server answers there: {error.strerror or error}"
        server.close()
        raise StartupError(why, Exit.ENVIRONMENT)


def describe_silence(control: Path) -> str:
    return (
        f"run_dir is {control.parent}; the server there has not answered for {ANSWER_S:g} s: its arbiter is "
        "stopped or hangs (see its state with ps; SIGCONT continues a stopped one, SIGKILL ends it)"
    )


def report_reload(answer: Mapping[str, Any]) -> int:
    write_out(f"reload {answer['result']}, generation {answer['generation']} serves")
    if answer["result"] == "succeeded":
        return Exit.OK
    print(escape_controls(answer["traceback"] or answer["message"]), file=sys.stderr)
    return Exit.APP
