"""What an operator gives an agent that may be older than itself: what the agent does not know is left out."""

import json

import pytest
from prefork.agent.options import VARIABLE, parse_options
from prefork.errors import StartupError

BASE = ["--run-dir=/run", "--content=db=/mounted/db", "--versions=/content"]


def test_options_of_the_variable_are_taken_as_arguments_are() -> None:
    given = {"log-format": "json", "secret": ["db"], "digest-key": "/key/key"}
    options = parse_options(BASE, {VARIABLE: json.dumps(given)})
    assert (options.log_format, options.secret, str(options.digest_key)) == (
        "json",
        ("db",),
        "/key/key",
    )
    assert options.ignored == ()


def test_option_that_a_later_operator_gives_is_ignored_and_named() -> None:
    given = {"later": "1", "latest": ["a", {"b": 1}], "log-format": "json"}
    options = parse_options(BASE, {VARIABLE: json.dumps(given)})
    assert options.log_format == "json"
    assert options.ignored == ("--later=1", "--latest=a", "--latest={'b': 1}")


def test_argument_wins_over_the_variable_and_an_unknown_one_is_refused() -> None:
    environment = {VARIABLE: '{"log-format": "json"}'}
    assert parse_options([*BASE, "--log-format=text"], environment).log_format == "text"
    with pytest.raises(StartupError, match="--later"):
        parse_options([*BASE, "--later=1"], environment)


@pytest.mark.parametrize("text", ["{", "5", "[1]", "null", "[" * 100_000])
def test_variable_that_is_no_object_is_refused_with_the_remedy(text: str) -> None:
    with pytest.raises(StartupError, match=r"PREFORK_AGENT_OPTIONS is .* use a JSON object"):
        parse_options(BASE, {VARIABLE: text})


def test_without_the_variable_nothing_is_taken() -> None:
    assert parse_options(BASE, {}) == parse_options(BASE)
