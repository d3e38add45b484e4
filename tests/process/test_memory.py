"""What a further worker costs, where it shares the import."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prefork.arbiter.proc import read_private

from tests.process.harness import Prefork, write_app

pytest.importorskip("django")

MIB = 1 << 20
# Django with its admin site, and one view. 4.8 MiB seen here, 7.4 without shared counts and warm-up; gunicorn --preload: 6.5.
WORKER_BYTES_MAX = 5.3 * MIB

APP = """
    import os
    from django.conf import settings

    CONTRIB = ["admin", "auth", "contenttypes", "sessions", "messages", "staticfiles"]
    settings.configure(
        ROOT_URLCONF=__name__, SECRET_KEY="x" * 50, ALLOWED_HOSTS=["*"], STATIC_URL="/static/",
        INSTALLED_APPS=[f"django.contrib.{name}" for name in CONTRIB],
        MIDDLEWARE=[
            "django.middleware.security.SecurityMiddleware",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        TEMPLATES=[{
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {"context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]},
        }],
    )

    from django.core.wsgi import get_wsgi_application
    app = get_wsgi_application()

    from django.contrib import admin
    from django.http import HttpResponse
    from django.urls import path
    urlpatterns = [path("admin/", admin.site.urls), path("", lambda request: HttpResponse(str(os.getpid())))]
"""


def test_further_django_worker_costs_less_than_with_gunicorn(folder: Path):
    write_app(folder, APP)
    with Prefork("-w", "3", cwd=folder) as server:
        workers = server.wait_workers(3)
        answers: list[int] = []
        with ThreadPoolExecutor(6) as pool:
            server.wait(
                lambda: ask(pool, server, answers), what="not every worker has answered enough"
            )
        sizes = {pid: read_private(pid) for pid in workers}
        print({pid: f"{size / MIB:.2f} MiB" for pid, size in sizes.items()})
        assert max(sizes.values()) < WORKER_BYTES_MAX


def ask(pool: ThreadPoolExecutor, server: Prefork, answers: list[int]) -> bool:
    """Ask some more, several at once, so that all are asked; true when each worker has answered 30 times."""
    answers += [int(body) for _, body in pool.map(server.get, ["/"] * 30)]
    return all(answers.count(pid) >= 30 for pid in server.workers())
