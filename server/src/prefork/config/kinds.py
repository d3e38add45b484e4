"""What a setting's value may be: how it is read from text or from a config file, and the words for what is allowed."""

import itertools
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from re import fullmatch
from typing import Any


@dataclass(frozen=True)
class Kind:
    """How a setting's value is read from text or from a config file, and what is allowed."""

    parse: Callable[[Any], Any]
    allowed: str  # completes "NAME is VALUE; use …"
    metavar: str
    repeatable: bool = False
    is_flag: bool = False


def whole(value: Any) -> int:
    """Return `value` as an integer; True and 1.5 are not integers."""
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError
    return int(value)


def integer(low: int, high: int, *, none: str = "", auto: bool = False) -> Kind:
    """A whole number in a range; `none` says what 0 means where 0 is a special value."""

    def parse(value: Any) -> int | str:
        if auto and value == "auto":
            return "auto"
        number = whole(value)
        if not (low <= number <= high or (none and number == 0)):
            raise ValueError
        return number

    allowed = f"{low} to {high}"
    if none:
        allowed += f", or 0 for {none}"
    if auto:
        allowed += ", or auto"
    return Kind(parse, allowed, "N|auto" if auto else "N")


def seconds(low: float, high: float, *, none: str = "") -> Kind:
    """A time in seconds, fractions allowed."""

    def parse(value: Any) -> float:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
        if math.isnan(number) or not (low <= number <= high or (none and number == 0)):
            raise ValueError
        return number

    allowed = f"{low:g} to {high:g} seconds" + (f", or 0 for {none}" if none else "")
    return Kind(parse, allowed, "SECONDS")


def bounds(most: int) -> Kind:
    """Upper bounds of histogram buckets in seconds, in ascending order."""

    def parse(value: Any) -> tuple[float, ...]:
        items = value.split(",") if isinstance(value, str) else list(value)
        numbers = tuple(float(item) for item in items)
        # In microseconds, as the stats table has them.
        whole_us = [round(number * 1e6) for number in numbers]
        is_ascending = all(low < high for low, high in itertools.pairwise(whole_us))
        if not (
            1 <= len(numbers) <= most
            and is_ascending
            and numbers[0] >= 1e-6
            and numbers[-1] <= 3600
        ):
            raise ValueError
        return numbers

    return Kind(
        parse,
        f"1 to {most} ascending bounds from 0.000001 to 3600 seconds, separated by commas",
        "SECONDS,…",
    )


UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "k": 10**3, "M": 10**6, "G": 10**9}


def size(low: int, high: int, *, none: str = "") -> Kind:
    """A number of bytes; Ki Mi Gi k M G as in Kubernetes quantities."""

    def parse(value: Any) -> int:
        if isinstance(value, str):
            digits = value.rstrip("KMGik")
            value = whole(digits) * (UNITS[value[len(digits) :]] if digits != value else 1)
        number = whole(value)
        if not (low <= number <= high or (none and number == 0)):
            raise ValueError
        return number

    def read(value: Any) -> int:
        try:
            return parse(value)
        except KeyError:
            raise ValueError from None

    allowed = f"{show_size(low)} to {show_size(high)} bytes (units Ki, Mi, Gi)"
    return Kind(read, allowed + (f", or 0 for {none}" if none else ""), "BYTES")


def show_size(number: int) -> str:
    for unit in ("Gi", "Mi", "Ki"):
        if number and number % UNITS[unit] == 0:
            return f"{number // UNITS[unit]}{unit}"
    return str(number)


def choice(*names: str, aliases: Mapping[Any, str] | None = None) -> Kind:
    """One of several words, in any case; `aliases` maps other accepted values to them."""
    meant = {lower(other): word for other, word in (aliases or {}).items()}

    def parse(value: Any) -> str:
        key = lower(value)
        named: str = meant.get(key, key)
        if named not in names:
            raise ValueError
        return named

    return Kind(parse, " or ".join(names), "|".join(names))


def lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def text(allowed: str, metavar: str, *, accept: Callable[[str], bool] | None = None) -> Kind:
    """A text without line breaks and NUL; None (a config file's "not set") is the empty text."""

    def parse(value: Any) -> str:
        if value is None:
            return ""
        if not isinstance(value, str) or any(c in value for c in "\0\r\n"):
            raise ValueError
        if value and accept is not None and not accept(value):
            raise ValueError
        return value

    return Kind(parse, allowed, metavar)


def texts(
    allowed: str, metavar: str, *, separator: str = ",", accept: Callable[[str], bool] | None = None
) -> Kind:
    """A list: repeated on the command line, separated in the environment, a list in a file."""

    def parse(value: Any) -> tuple[str, ...]:
        if value is None:
            return ()
        if isinstance(value, str):
            items = value.split(separator) if separator else [value]
        else:
            members = () if isinstance(value, (dict, bytes)) else tuple(value)
            if (value and not members) or not all(isinstance(item, str) for item in members):
                raise ValueError
            items = [
                part
                for item in members
                for part in (item.split(separator) if separator else [item])
            ]
        stripped = tuple(item.strip() for item in items if item.strip())
        if any(
            any(c in item for c in "\0\r\n") or (accept and not accept(item)) for item in stripped
        ):
            raise ValueError
        return stripped

    return Kind(parse, allowed, metavar, repeatable=True)


FLAG_WORDS = {
    True: True, False: False, None: False, "1": True, "0": False, "": False,
    "true": True, "false": False, "yes": True, "no": False, "on": True, "off": False,
}  # fmt: skip


def flag() -> Kind:
    """Yes or no; on the command line the option alone."""

    def parse(value: Any) -> bool:
        key = value.lower() if isinstance(value, str) else value
        if not isinstance(key, (bool, str, type(None))) or key not in FLAG_WORDS:
            raise ValueError
        return FLAG_WORDS[key]

    return Kind(parse, "true or false", "", is_flag=True)


def octal(value: Any) -> int:
    number = int(value, 8) if isinstance(value, str) else whole(value)
    if not 0 <= number <= 0o777:
        raise ValueError
    return number


def is_content(value: str) -> bool:
    name, equals, folder = value.partition("=")
    return bool(equals and folder and name.replace("-", "").replace("_", "").isalnum())


def is_variable(value: str) -> bool:
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return False
    return value.partition("=")[1] == "=" and not value.startswith("=") and "\0" not in value


def is_peer(value: str) -> bool:
    """Whether it is an address, a network, or * for all, as the engine reads them."""
    import ipaddress  # for those who set it only

    address, slash, bits = value.partition("/")
    if value == "*":
        return True
    try:
        width = ipaddress.ip_address(address).max_prefixlen
    except ValueError:
        return False
    is_prefix = bits.isascii() and bits.isdigit() and int(bits) <= width
    return "%" not in address and (is_prefix or not slash)


def is_host_port(value: str) -> bool:
    host, colon, port = value.rpartition(":")
    return (
        bool(colon and fullmatch("[0-9]{1,5}", port)) and 0 < int(port) < 65536 and "/" not in host
    )


def is_request_path(value: str) -> bool:
    return value.startswith("/") and is_field_word(value)


def is_field_word(value: str) -> bool:
    """Whether it can stand in a request head as it is: visible ASCII, no blank."""
    return all("!" <= character <= "~" for character in value)


def read_script_name(value: Any) -> str:
    """Return SCRIPT_NAME as PEP 3333 wants it: empty, or with a slash at its start and none at its end."""
    if not isinstance(value, str) or not value.isprintable() or (value and value[0] != "/"):
        raise ValueError
    return value.rstrip("/")
