"""`prefork status`, `reload`, `stop`: one question over the control socket of a running server (docs/contracts.md, section 4)."""

import json
import os
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefork.base.run_dir import CONTROL, has_server
from prefork.config.command_line import Parser
from prefork.errors import Exit, StartupError

OPERATIONS = {
    "status": "Print the state of a running server as JSON.",
    "reload": "Reload the app of a running server; wait for the result.",
    "stop": "Stop a running server gracefully; wait for its end.",
}


def operate(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Carry out one of OPERATIONS, the first argument; return the exit code."""
    operation, *rest = arguments
    control = find_control(parse_run_dir(operation, rest, environment), operation, environment)
    with connect(control) as server, server.makefile("rw") as lines:
        answer = ask(lines, {"op": operation, "id": f"{operation}-{os.getpid()}"}, control)
        if operation == "stop":
            lines.read()  # the connection ends with the server
            return Exit.OK
    if operation == "reload":
        return report_reload(answer)
    print(json.dumps(answer, indent=2))
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
    bases = dict.fromkeys(
        (environment.get("XDG_RUNTIME_DIR") or tempfile.gettempdir(), tempfile.gettempdir())
    )
    found = [
        path
        for base in bases
        for path in Path(base).glob(f"prefork-*/{CONTROL}")
        if path.stat().st_uid == os.getuid() and has_server(path)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        named = ", ".join(str(path.parent) for path in found)
        raise StartupError(f"{len(found)} servers run; name one by --run-dir: {named}")
    raise StartupError(
        f"no running server was found; name its --run-dir ({serve_hint(operation)})",
        Exit.ENVIRONMENT,
    )


def connect(control: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        server.connect(str(control))
    except OSError as error:
        server.close()
        raise StartupError(
            f"run_dir is {control.parent}; no server answers there: {error.strerror or error}",
            Exit.ENVIRONMENT,
        ) from None
    return server


def ask(lines: Any, question: dict[str, Any], control: Path) -> dict[str, Any]:
    """Return the answer to one line. Raises StartupError where there is none, or the server rejects it."""
    lines.write(json.dumps(question) + "\n")
    lines.flush()
    line = lines.readline()
    if not line.endswith("\n"):
        raise StartupError(
            f"run_dir is {control.parent}; the server there ended before it had answered",
            Exit.ENVIRONMENT,
        )
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise StartupError(f"the server rejects it: {answer['error']}")
    return answer


def report_reload(answer: Mapping[str, Any]) -> int:
    print(f"reload {answer['result']}, generation {answer['generation']} serves")
    if answer["result"] == "succeeded":
        return Exit.OK
    print(answer["traceback"] or answer["message"], file=sys.stderr)
    return Exit.APP
