"""The table of settings agrees with itself."""

from prefork.config.gunicorn import UNSUPPORTED
from prefork.config.options import SETTINGS


def test_no_name_or_flag_is_declared_twice():
    flags = [flag for row in (*SETTINGS, *UNSUPPORTED) for flag in row.flags]
    names = [row.name for row in (*SETTINGS, *UNSUPPORTED)]
    assert len(flags) == len(set(flags))
    assert len(names) == len(set(names))


def test_defaults_are_values_that_are_allowed():
    for setting in SETTINGS:
        assert setting.read(setting.default, "default") == setting.default
