"""The app under load: plain WSGI, so that a request costs the shared machine next to nothing.

X-App-Version names everything that a reload or a rollout can change: the code's version, the
Secret's, and whether the image has Flask; of /own, what was imported and read for this request.
"""

import importlib
import importlib.util
import os
import pathlib
import time
from urllib.parse import parse_qs

import release  # a ConfigMap key next to this file: VERSION, and HEALTH where it is to be bad

time.sleep(float(os.environ.get("IMPORT_SECONDS", "0")))

parts = [release.VERSION]
if settings := os.environ.get("WSGIAPP_CONFIG_SETTINGS"):
    parts.append(pathlib.Path(settings, "version").read_text().strip())
if importlib.util.find_spec("flask"):
    parts.append("flask-image")
VERSION = "/".join(parts)


def application(environ, start_response):
    body, status, version = b"hello\n", "200 OK", VERSION
    match environ["PATH_INFO"]:
        case "/":
            pass
        case "/healthz":
            body, status = b"ok\n", getattr(release, "HEALTH", "200 OK")
        case "/version":
            body = VERSION.encode()
        case "/own":
            import late  # only now, and by the code that serves

            importlib.reload(late)
            texts = [pathlib.Path(folder, "page.txt").read_text() for folder in ("", "/app")]
            version = ", ".join([late.VERSION, *texts])
            body = version.encode()
        case "/echo" if environ["REQUEST_METHOD"] == "POST":
            body = environ["wsgi.input"].read()
        case "/slow":
            ms = int(parse_qs(environ["QUERY_STRING"])["ms"][0])
            time.sleep(min(ms, 60_000) / 1000)
        case _:
            start_response("404 Not Found", [("Content-Length", "0")])
            return [b""]
    headers = [
        ("Content-Type", "application/octet-stream"),
        ("Content-Length", str(len(body))),
        ("X-App-Version", version),
        ("X-Worker-Pid", str(os.getpid())),
    ]
    start_response(status, headers)
    return [body]
