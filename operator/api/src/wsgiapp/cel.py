"""The CRD's CEL rules, for manifests that never met an API server (`wsgiapp run`, `wsgiapp render`).

An API server evaluates `x-kubernetes-validations` itself. Here they are read from the same CRD, so that
a manifest is refused by the same rule, with the same message, before it leaves the machine. Of CEL
(https://github.com/google/cel-spec, doc/langdef.md) there is as much as the CRD uses; a rule that
needs more raises UnknownCel, and a unit test reads every rule.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from wsgiapp.names import KIND
from wsgiapp.schema import Invalid, Schema, complete, load_crd, load_spec_schema
from wsgiapp.types import Manifest

Scope = Mapping[str, Any]
Expression = Callable[[Scope], Any]


class UnknownCel(Exception):  # noqa: N818 -- named for what it is
    """A rule of the CRD uses something of CEL that is not here."""


def find_broken_rules(manifest: Manifest) -> Iterator[Invalid]:
    """Yield the rules that `manifest` breaks; those that ask for what does not fit the schema say nothing."""
    schema = load_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    whole = {**manifest, "spec": complete(manifest.get("spec"), load_spec_schema())}
    for path, rule, value in find_rules(whole, schema, ""):
        with contextlib.suppress(_Absent, TypeError):
            message = _judge(rule, value)
            if message is not None:
                field = path + rule.get("fieldPath", "")
                yield Invalid(field or KIND, _after(field, message))


def _judge(rule: Mapping[str, str], value: Any) -> str | None:
    """Return the message of a rule that `value` breaks; None where it holds."""
    scope = {"self": value}
    if read_cel(rule["rule"])(scope):
        return None
    return rule.get("message") or str(read_cel(rule["messageExpression"])(scope))


def _after(field: str, message: str) -> str:
    """Return `message` as it continues after its field; many begin with the field themselves."""
    begins = f"{field} "
    return message.removeprefix(begins) if message.startswith(begins) else f"is refused: {message}"


def find_rules(
    value: Any, schema: Schema, path: str
) -> Iterator[tuple[str, Mapping[str, str], Any]]:
    """Yield (path, rule, value it is about) for all that is there, the outer ones last."""
    if isinstance(value, dict):
        others = schema.get("additionalProperties", {})
        for name, item in value.items():
            inner = schema.get("properties", {}).get(name, others)
            yield from find_rules(item, inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from find_rules(item, schema.get("items", {}), f"{path}[{index}]")
    for rule in schema.get("x-kubernetes-validations", ()):
        yield path, rule, value


# --- CEL ------------------------------------------------------------------------------------------

TOKEN = re.compile(
    r"""\s*(?: (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*") | (?P<number>\d+(?:\.\d+)?)
           | (?P<name>[A-Za-z_]\w*) | (?P<sign>&&|\|\||[=!<>]=|[-+<>!?:.,()\[\]]) )""",
    re.VERBOSE,
)
# From loose to tight; all lean to the left.
LEVELS: tuple[Mapping[str, Callable[[Any, Any], Any]], ...] = (
    {
        "==": operator.eq,
        "!=": operator.ne,
        "<": operator.lt,
        "<=": operator.le,
        ">": operator.gt,
        ">=": operator.ge,
        "in": lambda item, items: item in items,
    },
    {"+": operator.add, "-": operator.sub},
)
CONSTANTS = {"true": True, "false": False, "int": int, "string": str}


@functools.cache
def read_cel(source: str) -> Expression:
    """Return a CEL expression as a function of its variables; raises UnknownCel."""
    return _Reader(source).read()


def matches(text: str, pattern: str) -> bool:
    """CEL's `matches`: RE2, found anywhere. RE2's `$` is the end, Python's may be before a line end."""
    return re.search(pattern.replace("$", r"\Z"), text) is not None


def is_sorted(items: Sequence[Any]) -> bool:
    """CEL's `isSorted`, of Kubernetes' library for lists: equal neighbours are sorted."""
    return all(low <= high for low, high in itertools.pairwise(items))


# What is said of a list by what holds for its items.
MACROS: Mapping[str, Callable[[Iterable[bool]], bool]] = {
    "all": all,
    "exists_one": lambda found: sum(map(bool, found)) == 1,
}
METHODS: Mapping[str, Callable[[Any, Any], Any]] = {
    "matches": matches,
    "startsWith": str.startswith,
}


class _Reader:
    """Recursive descent; each method reads one level and returns its function."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._tokens = list(_split(source))
        self._next = 0

    def read(self) -> Expression:
        whole = self._choice()
        if self._next < len(self._tokens):
            raise self._unknown()
        return whole

    def _choice(self) -> Expression:
        test = self._either()
        if not self._take("?"):
            return test
        yes = self._choice()
        self._expect(":")
        no = self._choice()
        return lambda scope: yes(scope) if test(scope) else no(scope)

    def _either(self) -> Expression:
        parts = [self._both()]
        while self._take("||"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else lambda scope: any(part(scope) for part in parts)

    def _both(self) -> Expression:
        parts = [self._binary(0)]
        while self._take("&&"):
            parts.append(self._binary(0))
        return parts[0] if len(parts) == 1 else lambda scope: all(part(scope) for part in parts)

    def _binary(self, level: int) -> Expression:
        if level == len(LEVELS):
            return self._unary()
        left = self._binary(level + 1)
        while (sign := self._peek()) in LEVELS[level]:
            self._next += 1
            left = _combine(LEVELS[level][sign], left, self._binary(level + 1))
        return left

    def _unary(self) -> Expression:
        if self._take("!"):
            inner = self._unary()
            return lambda scope: not inner(scope)
        return self._member()

    def _member(self) -> Expression:
        value = self._primary()
        while self._take("."):
            name = self._name()
            value = self._call(value, name) if self._take("(") else _select(value, name)
        return value

    def _call(self, value: Expression, name: str) -> Expression:
        if name in MACROS:
            variable = self._name()
            self._expect(",")
            test = self._choice()
            self._expect(")")
            combine = MACROS[name]
            return lambda scope: combine(test({**scope, variable: x}) for x in value(scope))
        if name == "isSorted":
            self._expect(")")
            return lambda scope: is_sorted(value(scope))
        if name not in METHODS:
            raise self._unknown()
        argument = self._choice()
        self._expect(")")
        return _combine(METHODS[name], value, argument)

    def _primary(self) -> Expression:
        token = self._peek()
        self._next += 1
        if token == "(":
            inner = self._choice()
            self._expect(")")
            return inner
        if token == "[":
            return self._list()
        if token[0] in "'\"":
            text = re.sub(r"\\(.)", r"\1", token[1:-1])
            return lambda scope: text
        if token[0].isdigit():
            number = float(token) if "." in token else int(token)
            return lambda scope: number
        if token in ("has", "string", "type") and self._take("("):
            return self._function(token)
        if token in CONSTANTS:
            return lambda scope: CONSTANTS[token]
        if not token.isidentifier():
            raise self._unknown()
        return lambda scope: scope[token]

    def _list(self) -> Expression:
        items: list[Expression] = []
        while not self._take("]"):
            items.append(self._choice())
            if self._peek() != "]":
                self._expect(",")
        return lambda scope: [item(scope) for item in items]

    def _function(self, name: str) -> Expression:
        argument = self._choice()
        self._expect(")")
        if name == "has":
            return lambda scope: _has(argument, scope)
        function: Callable[[Any], Any] = str if name == "string" else type
        return lambda scope: function(argument(scope))

    def _peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else "end of the rule"

    def _take(self, sign: str) -> bool:
        is_there = self._peek() == sign
        self._next += is_there
        return is_there

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise self._unknown()

    def _name(self) -> str:
        name = self._peek()
        if not name.isidentifier():
            raise self._unknown()
        self._next += 1
        return name

    def _unknown(self) -> UnknownCel:
        return UnknownCel(f"{self._peek()!r} in {self._source!r}; teach cel.py to read it")


class _Absent(Exception):  # noqa: N818 -- never leaves this module
    """A field that is not there was selected."""


def _select(value: Expression, name: str) -> Expression:
    def select(scope: Scope) -> Any:
        found = value(scope)
        if name not in found:
            raise _Absent(name)
        return found[name]

    return select


def _has(selection: Expression, scope: Scope) -> bool:
    try:
        selection(scope)
    except _Absent:
        return False
    return True


def _combine(
    function: Callable[[Any, Any], Any], left: Expression, right: Expression
) -> Expression:
    return lambda scope: function(left(scope), right(scope))


def _split(source: str) -> Iterator[str]:
    position = 0
    text = source.rstrip()
    while position < len(text):
        token = TOKEN.match(text, position)
        if token is None:
            raise UnknownCel(
                f"{text[position : position + 10]!r} in {source!r}; teach cel.py to read it"
            )
        yield token[0].strip()
        position = token.end()
