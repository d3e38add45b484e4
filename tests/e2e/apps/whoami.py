"""Says who answers, and what of the way in it sees."""

import json
import os
import time
from urllib.parse import parse_qs


def application(environ, start_response):
    body = environ["wsgi.input"].read()
    if wait := parse_qs(environ["QUERY_STRING"]).get("seconds"):
        time.sleep(float(wait[0]))
    seen = {
        "name": os.environ["NAME"],
        "script": environ["SCRIPT_NAME"],
        "path": environ["PATH_INFO"],
        "scheme": environ["wsgi.url_scheme"],
        "bytes": len(body),
    }
    text = json.dumps(seen).encode()
    start_response("200 OK", [("Content-Length", str(len(text)))])
    return [text]
