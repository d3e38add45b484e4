"""Every answer of the example shop names the settings that gave it."""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse


def add_version(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Return middleware that puts `version` of settings.toml into X-App-Version."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response["X-App-Version"] = settings.SHOP_VERSION
        return response

    return middleware
