"""What a framework loads at its first request and might as well load with the app; no request is made.

Otherwise each worker would load it for itself, and share none of it: a Django app imports its views
with its URLs, at the first request. Called by `inspection`, so that it is looked at like the rest.
"""

import contextlib
import sys
from importlib import import_module
from typing import Any

# Settings of Django's that name classes by their path, which it imports when a request first needs them.
NAMED_CLASSES = {
    "django.contrib.messages": "MESSAGE_STORAGE",
    "django.contrib.sessions": "SESSION_SERIALIZER",
    "django.contrib.auth": "AUTHENTICATION_BACKENDS",
}


def warm_up() -> None:
    """Load Django's URLs, templates and the classes its settings name, if this is a Django app that has been set up.

    Raises what the app's modules raise; a request raises it again.
    """
    if "django.core.handlers.wsgi" not in sys.modules:
        return
    apps: Any = sys.modules["django.apps"].apps
    settings: Any = sys.modules["django.conf"].settings
    if not apps.ready or not getattr(settings, "ROOT_URLCONF", ""):
        return
    urls: Any = import_module("django.urls")
    urls.get_resolver().url_patterns  # noqa: B018 - the first look imports them
    templates: Any = import_module("django.template")
    templates.engines.all()
    for app, setting in NAMED_CLASSES.items():
        if apps.is_installed(app):
            import_named(getattr(settings, setting, ()))


def import_named(paths: str | list[str] | tuple[str, ...]) -> None:
    """Import the modules of dotted paths to classes; one that cannot be is the request's matter."""
    for path in [paths] if isinstance(paths, str) else paths:
        with contextlib.suppress(Exception):
            import_module(path.rpartition(".")[0])
