"""The format of the access log: the names of JSON fields, and formats as gunicorn has them.

A format is compiled once, for each worker: literals and the names of the engine's fields between them
(`Engine`, setting `access_log`). Pure.
"""

import re
from collections.abc import Mapping
from typing import Any

# What every line of a worker says alike; they come last.
CONSTANTS = ("pid", "worker", "generation")
DEFAULT_FIELDS = (
    "time", "client", "method", "host", "target", "protocol", "status", "bytes", "duration_us", "queue_us", "refusal",
    "referer", "user_agent", "request_id", "trace_id", *CONSTANTS,
)  # fmt: skip
FIELDS = (*DEFAULT_FIELDS, "remote", "path", "query", "user")
HEADER = "header:"

COMMON = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s'
NAMED = {"common": COMMON, "combined": COMMON + ' "%(f)s" "%(a)s"'}

# gunicorn's atoms, and the engine's fields.
ATOMS = {
    "h": "client", "u": "user", "t": "time", "r": "request_line", "m": "method", "U": "path", "q": "query",
    "H": "protocol", "s": "status", "B": "bytes", "b": "bytes", "f": "referer", "a": "user_agent", "T": "duration_s",
    "M": "duration_ms", "D": "duration_us", "L": "duration_decimal",
}  # fmt: skip
# What is the same in every line: the remote log name, which nobody has, and the process id.
FIXED_ATOMS = ("l", "p")
ALLOWED = (
    "json, common, combined, or a format with the atoms "
    + " ".join(f"%({atom})s" for atom in sorted((*ATOMS, *FIXED_ATOMS)))
    + " and %({NAME}i)s for a request header"
)
LONGEST_FORMAT = 1000

# (style, literals and the fields after them, end)
Compiled = tuple[str, list[tuple[str, str]], str]


def is_field(name: str) -> bool:
    """Whether a JSON line can have this field."""
    return name in FIELDS or (name.startswith(HEADER) and is_header(name.removeprefix(HEADER)))


def is_header(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9-]+", name) is not None


def read_format(value: Any) -> str:
    """Return a format that can be compiled. Raises ValueError."""
    if not isinstance(value, str) or not value.isprintable() or len(value) > LONGEST_FORMAT:
        raise ValueError
    if value != "json":
        split_format(value)
    return value


def split_format(text: str) -> list[tuple[str, str]]:
    """Return pairs of a literal and the name of the atom after it, "" at the end. Raises ValueError.

    `%%` is a percent sign, as in gunicorn, whose formats Python's own `%` fills in.
    """
    parts = []
    literal = ""
    for before, atom in re.findall(
        r"((?:[^%]|%%)*)(?:%\(([^)]+)\)s|$|(?=%))", NAMED.get(text, text)
    ):
        literal += before.replace("%%", "%")
        if atom:
            parts.append((literal, atom))
            literal = ""
    whole = "".join(before.replace("%", "%%") + f"%({atom})s" for before, atom in parts)
    if not parts or whole + literal.replace("%", "%%") != NAMED.get(text, text):
        raise ValueError
    if not all(is_atom(atom) for _, atom in parts):
        raise ValueError
    return [*parts, (literal, "")]


def is_atom(name: str) -> bool:
    header = re.fullmatch(r"\{([^}]+)\}i", name)
    return name in ATOMS or name in FIXED_ATOMS or (header is not None and is_header(header[1]))


def compile_format(text: str, fields: tuple[str, ...], constants: Mapping[str, int]) -> Compiled:
    """Return a format as the engine takes it; `constants` are the worker's own numbers, by CONSTANTS."""
    if text == "json":
        return compile_json(fields, constants)
    parts: list[tuple[str, str]] = []
    literal = ""
    for before, atom in split_format(text):
        literal += before
        if atom in FIXED_ATOMS:
            literal += "-" if atom == "l" else f"<{constants['pid']}>"
        elif atom:
            parts.append((literal, ATOMS.get(atom) or HEADER + atom[1:-2]))
            literal = ""
    return "text", parts, literal


def compile_json(fields: tuple[str, ...], constants: Mapping[str, int]) -> Compiled:
    """Return the format of JSON lines; the time comes first, what is the same in every line last."""
    parts = [('{"time":', "time")]
    end = ""
    for name in dict.fromkeys(fields):
        if name in CONSTANTS:
            end += f',"{name}":{constants[name]}'
        elif name != "time":
            parts.append((f',"{name.removeprefix(HEADER)}":', name))
    return "json", parts, end + "}"
