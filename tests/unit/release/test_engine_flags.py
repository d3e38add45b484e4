"""The engine is built so that this machine's folders are not in it, whatever flags a user gives."""

from pathlib import Path

import pytest

from server.engine_flags import without_paths

ENGINE = Path("/home/me/prefork/engine")


@pytest.mark.parametrize(
    ("environ", "first"),
    [
        ({}, []),
        ({"RUSTFLAGS": "-C target-cpu=native"}, ["-C", "target-cpu=native"]),
        ({"CARGO_ENCODED_RUSTFLAGS": "-L\x1fa b", "RUSTFLAGS": "-g"}, ["-L", "a b"]),
    ],
)
def test_folders_are_remapped_after_the_flags_of_the_user(
    environ: dict[str, str], first: list[str]
) -> None:
    flags = without_paths({**environ, "CARGO_HOME": "/cargo"}, ENGINE)["CARGO_ENCODED_RUSTFLAGS"]
    assert flags.split("\x1f") == [
        *first,
        "--remap-path-prefix=/home/me/prefork/engine=/prefork/engine",
        "--remap-path-prefix=/cargo/registry/src=/crates",
    ]
