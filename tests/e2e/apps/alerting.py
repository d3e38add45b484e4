"""An app that does, when asked, what alerts are about; plain WSGI."""

import os
import signal
import socket
import time
from urllib.parse import parse_qs

import release  # a ConfigMap key next to this file: REFUSED_BY, the name of a pod that does not take this version

if socket.gethostname() == release.REFUSED_BY:
    raise RuntimeError(f"{release.REFUSED_BY} does not take this version")

kept = []
held = bytearray()


def application(environ, start_response):
    status = "200 OK"
    match environ["PATH_INFO"]:
        case "/fail":
            status = "500 Internal Server Error"
        case "/sleep":
            time.sleep(float(parse_qs(environ["QUERY_STRING"])["s"][0]))
        case "/grow":
            kept.append(b"x" * 64 * 1024 * 1024)
        case "/hold":
            wanted = int(parse_qs(environ["QUERY_STRING"])["mib"][0]) << 20
            while len(held) < wanted:
                held.extend(b"x" * (1 << 20))
        case "/crash":
            os.kill(os.getpid(), signal.SIGSEGV)
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", "3")])
    return [b"ok\n"]
