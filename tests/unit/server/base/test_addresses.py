"""Addresses as they are written."""

import pytest
from prefork.base.addresses import Address, parse_address
from prefork.errors import StartupError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", Address("127.0.0.1:80", host="127.0.0.1", port=80)),
        (":8080", Address(":8080", port=8080)),
        ("localhost", Address("localhost", host="localhost", port=8000)),
        ("[::1]:80", Address("[::1]:80", host="::1", port=80)),
        ("[::]", Address("[::]", host="::", port=8000)),
        ("unix:/run/a.sock", Address("unix:/run/a.sock", path="/run/a.sock")),
        ("unix:///run/a.sock", Address("unix:///run/a.sock", path="/run/a.sock")),
        ("fd://3", Address("fd://3", descriptor=3)),
    ],
)
def test_addresses(text: str, address: Address):
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("127.0.0.1:http", "the port http is not one of 0 to 65535"),
        ("127.0.0.1:\N{SUPERSCRIPT TWO}", "is not one of 0 to 65535"),
        (f"127.0.0.1:{'9' * 5000}", "is not one of 0 to 65535"),
        ("fd://\N{SUPERSCRIPT TWO}", "use HOST:PORT"),
        ("1.2.3.4:70000", "the port 70000 is not"),
        ("::1:80", "write an IPv6 address in brackets"),
        ("[::1", "use HOST:PORT"),
        ("unix:", "use HOST:PORT, [IPV6]:PORT, unix:PATH"),
        ("fd://x", "use HOST:PORT"),
    ],
)
def test_bad_addresses_say_how_it_is_written(text: str, message: str):
    with pytest.raises(StartupError, match="bind is") as caught:
        parse_address(text)
    assert message in str(caught.value)
