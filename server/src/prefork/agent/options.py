"""The agent's command line, and the options that an operator gives beside it.

An operator may be newer than the agent, which an app can pin. What version 0.1.0 has, it gives as arguments;
everything else in a variable with a JSON object, of which an agent takes what it knows (docs/contracts.md §5).
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prefork.base.digest import parse_content
from prefork.base.log import STYLES
from prefork.config.command_line import Parser, explain_unknown
from prefork.config.kinds import is_content
from prefork.errors import StartupError

VARIABLE = "PREFORK_AGENT_OPTIONS"
DESCRIPTION = "Metrics, probes and reload requests next to a running prefork."


@dataclass(frozen=True)
class AgentOptions:
    """Settings of the agent, checked."""

    listen: str
    run_dir: Path
    reload_file: Path | None
    content: dict[str, Path]
    versions: Path | None
    last_good: dict[str, Path]
    revision: str
    secret: tuple[str, ...]
    digest_key: Path | None
    probe: str
    probe_host: str
    parent: int
    log_format: str = "text"
    ignored: tuple[str, ...] = ()  # of the variable: what this version does not have


def parse_options(
    arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> AgentOptions:
    """Return the settings of the variable and of argv, which wins. Raises StartupError."""
    given = read_variable((environment or {}).get(VARIABLE, ""))
    parser = Parser(prog="prefork agent", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument(
        "--listen",
        default="127.0.0.1:9000",
        metavar="HOST:PORT",
        help="where to answer [%(default)s]",
    )
    parser.add_argument("--run-dir", required=True, metavar="DIR", help="the server's --run-dir")
    parser.add_argument(
        "--reload-file",
        metavar="FILE",
        help="file that holds the reload request (a Pod annotation)",
    )
    parser.add_argument(
        "--content",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="directory as the server sees it, or with --versions as it is mounted; repeatable",
    )
    parser.add_argument(
        "--versions",
        metavar="DIR",
        help="directory in which each content is kept by version for the server, at the same path",
    )
    parser.add_argument(
        "--last-good",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="directory with the content's copy that a start of the server is to load; repeatable",
    )
    parser.add_argument(
        "--revision",
        default="",
        metavar="TEXT",
        help="what a copy has to be good for to be loaded",
    )
    parser.add_argument(
        "--secret",
        action="append",
        default=[],
        metavar="NAME",
        help="content of which only keyed digests are shown; needs --versions; repeatable",
    )
    parser.add_argument(
        "--digest-key",
        metavar="FILE",
        help="file with the key of these digests; without it the agent makes one of its own",
    )
    parser.add_argument(
        "--probe",
        default="",
        metavar="URL",
        help="http:// address that must answer 2xx or 3xx for readiness",
    )
    parser.add_argument(
        "--probe-host",
        default="",
        metavar="NAME",
        help="Host of the probe's request, for apps that check it",
    )
    parser.add_argument(
        "--log-format",
        default="text",
        metavar="text|json",
        help="what log lines are: text, or JSON objects [%(default)s]",
    )
    parser.add_argument("--parent", type=int, default=0, help=argparse.SUPPRESS)
    known, left = parser.parse_known_args([*given, *arguments])
    unknown = [argument for argument in left if argument not in given]
    if unknown:
        raise StartupError(explain_unknown(unknown[0], parser))
    for option in ("content", "last_good"):
        for pair in getattr(known, option):
            if not is_content(pair):
                raise StartupError(f"{option} is {pair}; use NAME=DIR")
    for name in known.secret:
        if not known.versions or not any(pair.startswith(f"{name}=") for pair in known.content):
            raise StartupError(f"secret is {name}; use a NAME of --content, with --versions")
    if known.log_format not in STYLES:
        raise StartupError(f"log-format is {known.log_format}; use {' or '.join(STYLES)}")
    if known.probe and not known.probe.startswith("http://"):
        raise StartupError(f"probe is {known.probe}; use an address that begins with http://")
    return AgentOptions(
        listen=known.listen,
        run_dir=Path(known.run_dir),
        reload_file=Path(known.reload_file) if known.reload_file else None,
        content=parse_content(tuple(known.content)),
        versions=Path(known.versions).absolute() if known.versions else None,
        last_good=parse_content(tuple(known.last_good)),
        revision=known.revision,
        secret=tuple(known.secret),
        digest_key=Path(known.digest_key) if known.digest_key else None,
        probe=known.probe,
        probe_host=known.probe_host,
        parent=known.parent,
        log_format=known.log_format,
        ignored=tuple(argument for argument in left if argument in given),
    )


def read_variable(text: str) -> list[str]:
    """Return the arguments that the variable holds: {OPTION: TEXT, or TEXTS where it is repeatable}.

    Raises StartupError.
    """
    try:
        options = dict(json.loads(text or "{}")).items()
    except (ValueError, TypeError, RecursionError):
        raise StartupError(
            f"{VARIABLE} is {text[:80]!r}; use a JSON object of options, such as "
            '{"log-format": "json", "secret": ["NAME"]}'
        ) from None
    return [
        f"--{name}={value}"
        for name, values in options
        for value in (values if isinstance(values, list) else [values])
    ]
