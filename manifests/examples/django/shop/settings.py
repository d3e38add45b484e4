"""Settings of the example shop.

What differs between places comes from outside: a folder with `settings.toml`, whose path is in
WSGIAPP_CONFIG_SETTINGS (set by the operator, and by `wsgiapp run`), and the secret key in
DJANGO_SECRET_KEY. A changed folder is read by the next generation of workers.
"""

import os
import tomllib
from pathlib import Path

_FOLDER = Path(os.environ.get("WSGIAPP_CONFIG_SETTINGS", "/etc/shop"))
_SITE = tomllib.loads((_FOLDER / "settings.toml").read_text(encoding="utf-8"))

SHOP_VERSION: str = _SITE["version"]
SHOP_GREETING: str = _SITE["greeting"]

SECRET_KEY = os.environ["DJANGO_SECRET_KEY"]
DEBUG: bool = _SITE["debug"]
# Without an ingress 127.0.0.1 is the Host of the health check, else the first host of the ingress is.
ALLOWED_HOSTS: list[str] = [*_SITE["allowed_hosts"], "127.0.0.1"]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "shop.middleware.add_version",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [Path(__file__).parent / "templates"],
    }
]
USE_TZ = True
