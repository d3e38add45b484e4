"""The `wsgiapp` command: what a person does with a WsgiApp manifest, without a cluster.

Output is its purpose, so it prints; a refusal is one line on standard error and exit code 2.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from wsgiapp.digest import digest_object
from wsgiapp.resources import Platform, build_children
from wsgiapp.schema import Invalid
from wsgiapp.types import OnChange

from wsgiapp_cli.manifests import (
    ManifestError,
    choose_app,
    read_app,
    read_documents,
    read_text,
)
from wsgiapp_cli.run import session

REFUSED = 2
EXAMPLES = """\
examples:
  wsgiapp run -f flask.yaml              serve it on http://127.0.0.1:8000, reload on change
  wsgiapp run -f app.yaml -f config.yaml --app shop --port 8080
  wsgiapp render -f flask.yaml           the objects that the operator makes of it
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        code: int = arguments.command(arguments)
        sys.stdout.flush()
    except (ManifestError, Invalid) as refusal:
        print(f"wsgiapp: {refusal}", file=sys.stderr)
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

    render = commands.add_parser("render", help="print the objects that the operator makes of it")
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
    return session.run(
        session.Request(
            files=tuple(arguments.files),
            app=arguments.app,
            port=arguments.port,
            metrics=arguments.metrics,
        )
    )


def render_command(arguments: argparse.Namespace) -> int:
    texts = {str(path): read_text(path) for path in arguments.files}
    children = render(texts, name=arguments.app, prefork_image=arguments.prefork_image)
    print(
        yaml.dump_all(children, Dumper=Plain, sort_keys=False, width=100, allow_unicode=True),
        end="",
    )
    return 0


class Plain(yaml.SafeDumper):
    """YAML without aliases: what is the same in two places is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def render(
    texts: Mapping[str, str], *, name: str | None, prefork_image: str
) -> list[dict[str, Any]]:
    """Return the objects that the operator applies for one app, but for what a cluster gives.

    They have no owner, since there is no WsgiApp yet that could be one. Where a ConfigMap or Secret
    with `onChange: Restart` is among the texts, the pods carry its digest as they would there.
    """
    documents = read_documents(texts)
    app = read_app(choose_app(documents, name=name))
    platform = Platform(
        prefork_image=prefork_image, prefork_pull_policy="IfNotPresent", image_volumes=True
    )
    digests = {
        content.name: digest_object(documents.objects[key])
        for content in app.config
        if content.on_change is OnChange.RESTART
        and (key := (content.ref.kind, app.namespace, content.ref.name)) in documents.objects
    }
    children = build_children(app, platform, digests)
    for child in children:
        del child["metadata"]["ownerReferences"]
    return children


if __name__ == "__main__":
    sys.exit(main())
