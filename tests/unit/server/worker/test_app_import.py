"""Names of apps as they are written."""

import functools
import inspect
import types
from unittest import mock

import pytest
from prefork.errors import StartupError
from prefork.worker.app_import import AppName, explain_unlike_wsgi, parse_app_name, suggest


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


class App:
    def __init__(self, *settings: object) -> None:
        pass

    def __call__(self, environ, start_response):
        return []

    def method(self, environ, start_response):
        return []

    @classmethod
    def of_class(cls, environ, start_response):
        return []


class PerRequest:
    def __init__(self, environ, start_response):
        pass


def plain(environ, start_response):
    return []


@functools.wraps(len)
def adapted(*args):
    """As werkzeug's `Request.application`: it looks like the function of one argument that it wraps."""


def declared(*args):
    pass


declared.__signature__ = inspect.signature(len)  # type: ignore[attr-defined]


class Proxy:
    """As one that is not bound: every look raises."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError("not bound")

    def __call__(self, *args: object) -> object:
        return []


@pytest.mark.parametrize(
    "app",
    [
        plain, App(), App().method, App.of_class, PerRequest, adapted, declared, Proxy(), dict, map, getattr,
        functools.partial(lambda db, environ, start_response: [], 1),
        functools.partial(plain), functools.lru_cache(plain), functools.wraps(plain)(App()),
        lambda environ, start_response, db=None: [], lambda *args, **keywords: [],
        lambda environ, start_response=None: [], mock.Mock(), mock.MagicMock(),
    ],
    ids=lambda app: type(app).__name__,
)  # fmt: skip
def test_what_can_be_called_as_a_wsgi_app_passes(app):
    assert explain_unlike_wsgi(app, "app", "shop:app") == ""


async def asgi(scope, receive, send):
    pass


@pytest.mark.parametrize(
    ("app", "named"),
    [
        (lambda: plain, "app takes (), but a WSGI app is called with (environ, start_response); if it returns the app, write shop:app()"),
        (lambda config=None: plain, "app takes (config), but a WSGI app is called with (environ, start_response); if it returns the app, write shop:app()"),
        (lambda config: plain, "write shop:app(VALUE) with its argument"),
        (lambda *, config=None: plain, "write shop:app()"),
        (functools.partial(lambda config, db: plain, 1), "write shop:app(VALUE)"),
        (functools.partial(lambda config: plain, 1), "write shop:app()"),
        (App().__init__, None),
        (type("NoArguments", (), {}), "write shop:app()"),
        (type("OneArgument", (), {"__init__": lambda self, config: None}), "write shop:app(VALUE)"),
        (type("Instance", (), {"__call__": lambda self: plain})(), "write shop:app()"),
        (asgi, "app takes (scope, receive, send), but a WSGI app is called with (environ, start_response); for an ASGI app use an ASGI server"),
        (lambda a, b, c, d: [], "app takes (a, b, c, d)"),
        (lambda environ, start_response, *, db: [], "app takes (environ, start_response, db)"),
    ],
)  # fmt: skip
def test_what_cannot_be_called_as_a_wsgi_app_is_named_with_the_remedy(app, named: str | None):
    why = explain_unlike_wsgi(app, "app", "shop:app")
    assert (named in why) if named else not why


def module(**names: object) -> types.ModuleType:
    made = types.ModuleType("shop")
    vars(made).update(names)
    return made


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        ({"create_app": lambda test_config=None: plain}, "; did you mean shop:create_app()?"),
        ({"create_app": lambda: plain, "app": App()}, "; did you mean shop:app or shop:create_app()?"),
        ({"server": App(), "view": plain, "App": App}, "; did you mean shop:server?"),
        ({"create_app": lambda config: plain, "main": lambda: None}, "; it has create_app, main"),
        ({"request": Proxy(), "_app": plain, "VERSION": 1}, "; it has request"),
        ({"VERSION": 1}, ""),
    ],
)  # fmt: skip
def test_module_without_what_is_named_is_searched_for_what_looks_like_an_app(
    names: dict[str, object], hint: str
):
    assert suggest(module(**names), "shop") == hint
