"""Writes docs/options.md from the table of settings: `python -m prefork.config.reference > docs/options.md`."""

import sys
from itertools import groupby

from prefork.config.gunicorn import HOOKS, UNSUPPORTED, UNSUPPORTED_HOOKS
from prefork.config.options import SETTINGS
from prefork.config.settings import Setting, show_value

HEAD = """\
# prefork: settings

Written from `server/src/prefork/config/options.py` by `make generate`; change it there.

Each setting can be given on the command line, in the environment, or in a config file (`-c FILE`: Python, with
gunicorn's names; without `-c`, `prefork.conf.py` or `gunicorn.conf.py` in the working directory is read).
The command line wins over the environment, the environment over the file.
"""

HOOKS_HEAD = """\
## Server hooks

Functions of a config file that are called, with gunicorn's arguments: {hooks}. `pre_fork` runs in the mold, after
the app has been imported there; what it sets on its worker is seen by `post_fork`, `post_worker_init` and `worker_exit`, not by `child_exit` in the arbiter. Not called, and named in a warning: {unsupported}.
"""

UNSUPPORTED_HEAD = """\
## What gunicorn has and prefork does not

Named in a warning where ignoring it does no harm; *refused* where going on without it would be unsafe.

| setting | | instead |
|---|---|---|
"""


def render() -> str:
    """Return the whole page; pure."""
    parts = [HEAD]
    for section, rows in groupby(SETTINGS, key=lambda setting: setting.section):
        parts.append(f"\n## {section}\n\n")
        parts.append("\n".join(render_setting(setting) for setting in rows))
    called = ", ".join(f"`{name}`" for name in HOOKS)
    parts.append(
        "\n"
        + HOOKS_HEAD.format(
            hooks=called, unsupported=", ".join(f"`{n}`" for n in UNSUPPORTED_HOOKS)
        )
    )
    parts.append("\n" + UNSUPPORTED_HEAD)
    for entry in UNSUPPORTED:
        effect = "refused" if entry.is_unsafe_to_ignore else "ignored"
        names = ", ".join(f"`{flag}`" for flag in entry.flags) or "config file"
        parts.append(f"| `{entry.name}` ({names}) | {effect} | {entry.remedy} |\n")
    return "".join(parts)


def render_setting(setting: Setting) -> str:
    """Return one setting: its name, spellings, what is allowed, its default."""
    flags = ", ".join(f"`{flag}`" for flag in setting.flags) or "the argument `APP`"
    lines = [f"### `{setting.name}`", "", setting.help, "", f"- command line: {flags}"]
    if setting.environment:
        lines.append("- environment: " + ", ".join(f"`{name}`" for name in setting.environment))
    if not setting.kind.is_flag:
        lines.append(f"- allowed: {setting.kind.allowed}")
        lines.append(
            f"- default: {f'`{show_value(setting.default)}`' if setting.default != '' and setting.default != () else 'not set'}"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
