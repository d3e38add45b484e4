"""One row of the table of settings: how it is declared, read from its sources, and shown."""

from dataclasses import MISSING, Field, dataclass, field
from typing import Any

from prefork.config.kinds import Kind


@dataclass(frozen=True)
class Setting:
    """One row of the table."""

    name: str  # attribute, and name in a config file
    flags: tuple[str, ...]  # long name last; empty: not on the command line
    kind: Kind
    default: Any
    section: str
    help: str
    also_environment: tuple[str, ...]  # other names that this kind of server is known to read
    is_command: bool  # asks for something else than serving; neither environment nor config file

    @property
    def environment(self) -> tuple[str, ...]:
        """Names of environment variables, the first that is set wins."""
        if self.is_command:
            return ()
        own = self.flags[-1].lstrip("-") if self.flags else self.name
        return ("PREFORK_" + own.replace("-", "_").upper(), *self.also_environment)

    def read(self, value: Any, source: str) -> Any:
        """Return `value` as the setting's type.

        Raises ValueError with a message for a person: what it is, what is allowed, where it was set.
        """
        try:
            return self.kind.parse(value)
        except Exception:  # of a config file, a value may be of any class
            raise ValueError(
                f"{self.name} is {show(value)}; use {self.kind.allowed} (from {source})"
            ) from None


def show(value: Any) -> str:
    """Return a value as a message has it."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = ",".join(value)
    try:
        return value if isinstance(value, str) and value else repr(value)
    except Exception:
        return f"an object of class {type(value).__name__}"


def setting(
    *flags: str,
    kind: Kind,
    default: Any,
    section: str,
    help: str,
    environment: tuple[str, ...] = (),
    is_command: bool = False,
) -> Any:
    """Declare one setting; the field's name is its name in a config file."""
    row = {"flags": flags, "kind": kind, "section": section, "help": help,
           "environment": environment, "is_command": is_command}  # fmt: skip
    return field(default=default, metadata=row)


def to_setting(column: Field[Any]) -> Setting:
    row = column.metadata
    assert column.default is not MISSING
    return Setting(
        name=column.name,
        flags=row["flags"],
        kind=row["kind"],
        default=column.default,
        section=row["section"],
        help=row["help"],
        also_environment=row["environment"],
        is_command=row["is_command"],
    )


def show_value(value: Any) -> str:
    """Return a value as one would write it."""
    if isinstance(value, tuple):
        return ",".join(show_value(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
