"""The controller's main loop: wait for a change, render, reload, and again."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time

from .certificates import write_certificates
from .model import build_sites
from .render import render
from .server import Nginx
from .watch import Mirror

logger = logging.getLogger("ingress")

INGRESSES = "/apis/networking.k8s.io/v1/ingresses"
SERVICES = "/api/v1/services"
SECRETS = "/api/v1/secrets?fieldSelector=type%3Dkubernetes.io%2Ftls"
SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
# What comes within this time goes into one reload, as in the real controller's queue.
BATCH_S = 0.1


def main() -> int:
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    changed, stopping = threading.Event(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    mirrors = [Mirror(path, changed.set) for path in (INGRESSES, SERVICES, SLICES, SECRETS)]
    for mirror in mirrors:
        threading.Thread(target=mirror.run_for_ever, daemon=True).start()
    nginx = Nginx()
    version, current = 0, ""
    while not stopping.is_set():
        changed.wait(timeout=1)
        if current and not nginx.is_alive():
            logger.error("nginx ended; so does the controller")
            return 1
        if not changed.is_set() or not all(mirror.is_synced for mirror in mirrors):
            continue
        time.sleep(BATCH_S)
        changed.clear()
        ingresses, services, slices, secrets = (mirror.objects() for mirror in mirrors)
        sites, rejected = build_sites(ingresses, services, slices, write_certificates(secrets))
        if (wanted := render(sites, 0)) == current:
            continue
        for ingress in rejected:
            logger.warning("Ingress %s is rejected: %s", ingress.ingress, ingress.reason)
        version += 1
        started = time.monotonic()
        if nginx.apply(render(sites, version), version):
            logger.info(
                "configuration %d: %d hosts, %.0f ms",
                version,
                len(sites),
                1e3 * (time.monotonic() - started),
            )
        current = wanted
    return nginx.stop()


if __name__ == "__main__":
    sys.exit(main())
