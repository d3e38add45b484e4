"""Names of apps as they are written."""

import pytest
from prefork.errors import StartupError
from prefork.worker.app_import import AppName, parse_app_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("shop", AppName("shop", "application")),
        ("shop.wsgi:app", AppName("shop.wsgi", "app")),
        ("shop:sites.main", AppName("shop", "sites.main")),
        ("shop:create()", AppName("shop", "create", True)),
        (
            "shop:create('x', debug=True)",
            AppName("shop", "create", True, ("x",), (("debug", True),)),
        ),
    ],
)
def test_app_names(text: str, name: AppName):
    assert parse_app_name(text) == name


@pytest.mark.parametrize(
    "text", ["app.py", "a-b:app", ":app", "shop:create(os.environ)", "shop:1", "shop:a b"]
)
def test_bad_app_names_say_how_it_is_written(text: str):
    with pytest.raises(StartupError, match="use MODULE:CALLABLE"):
        parse_app_name(text)
