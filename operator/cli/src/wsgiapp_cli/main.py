"""The `wsgiapp` command: what a person does with a WsgiApp manifest, without a cluster.

Output is its purpose, so it prints; a refusal is a line on standard error for each fault, and exit code 2.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from wsgiapp.schema import Invalid

from wsgiapp_cli.manifests import (
    ManifestError,
)
from wsgiapp_cli.render import render_command
from wsgiapp_cli.run.command import run
from wsgiapp_cli.run.session import Request

REFUSED = 2
EXAMPLES = """\
examples:
  wsgiapp run -f flask.yaml              serve it on http://127.0.0.1:8000, reload on change
  wsgiapp run -f app.yaml -f config.yaml --app shop --port 8080
  wsgiapp render -f flask.yaml           the objects that the operator creates from it
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        code: int = arguments.command(arguments)
        sys.stdout.flush()
    except (ManifestError, Invalid) as refusal:
        print(*(f"wsgiapp: {line}" for line in refusal.lines), sep="\n", file=sys.stderr)
        return REFUSED
    except BrokenPipeError:  # the reader has seen enough, as `head` has; Python docs, signal
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wsgiapp",
        description="WsgiApp manifests without a cluster.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="serve a manifest on this machine with prefork")
    add_manifest_options(run)
    run.add_argument(
        "--port", type=port, default=8000, help="port on 127.0.0.1; 0: any free one (default: 8000)"
    )
    run.add_argument(
        "--metrics",
        default="127.0.0.1:9000",
        metavar="HOST:PORT",
        help="where the agent serves /metrics; '' for none (default: 127.0.0.1:9000)",
    )
    run.set_defaults(command=run_command)

    render = commands.add_parser(
        "render", help="print the objects that the operator creates from it"
    )
    add_manifest_options(render)
    render.add_argument(
        "--prefork-image",
        default="wsgiapp/prefork:0.1.0",
        metavar="IMAGE",
        help="image of the server and its agent (default: wsgiapp/prefork:0.1.0)",
    )
    render.set_defaults(command=render_command)
    return parser


def add_manifest_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-f",
        "--file",
        dest="files",
        action="append",
        type=Path,
        required=True,
        metavar="FILE",
        help="manifest with the WsgiApp, or with a ConfigMap or Secret it names; repeatable",
    )
    parser.add_argument("--app", metavar="NAME", help="which WsgiApp, where there are several")


def port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"is {text!r}; use 0 to 65535")
    return int(text)


def run_command(arguments: argparse.Namespace) -> int:
    return run(
        Request(
            files=tuple(arguments.files),
            app=arguments.app,
            port=arguments.port,
            metrics=arguments.metrics,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
