"""The pages of the example shop. It keeps no state, so it needs no database."""

import os
import time

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest
from django.shortcuts import render
from django.views.decorators.http import require_GET, require_POST


@require_GET
def index(request: HttpRequest) -> HttpResponse:
    """Greet, in the words of settings.toml."""
    context = {"greeting": settings.SHOP_GREETING, "version": settings.SHOP_VERSION}
    return render(request, "index.html", {**context, "worker": os.getpid()})


@require_POST
def echo(request: HttpRequest) -> HttpResponse:
    """Send the body back as it came."""
    return HttpResponse(request.body, content_type="application/octet-stream")


@require_GET
def slow(request: HttpRequest) -> HttpResponse:
    """Answer after `ms` milliseconds, at most a minute."""
    wish = request.GET.get("ms", "100")
    if not wish.isdecimal():
        return HttpResponseBadRequest(f"ms is {wish!r}; use a whole number\n")
    time.sleep(min(int(wish), 60_000) / 1000)
    return HttpResponse(f"slept {wish} ms\n", content_type="text/plain")


@require_GET
def healthz(request: HttpRequest) -> HttpResponse:
    """Say that this worker can answer."""
    return HttpResponse("ok\n", content_type="text/plain")
