"""Keeps a copy of some kinds of Kubernetes objects by list and watch, over plain HTTPS.

The copy survives a lost API server: it is only ever replaced by a newer list (Kubernetes API concepts,
"Efficient detection of changes").
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
WATCH_S = 290
RETRY_S = (0.5, 2.0)  # first and longest pause before a failed request is made again

Manifest = dict[str, Any]


class Mirror:
    """The objects of one kind, by (namespace, name). `on_change` is called after each change."""

    def __init__(self, path: str, on_change: Callable[[], None]) -> None:
        self._path = path
        self._on_change = on_change
        self._lock = threading.Lock()
        self._objects: dict[tuple[str, str], Manifest] = {}
        self.is_synced = False

    def objects(self) -> list[Manifest]:
        with self._lock:
            return list(self._objects.values())

    def run_for_ever(self) -> None:
        pause_s = RETRY_S[0]
        while True:
            try:
                version = self._list()
                pause_s = RETRY_S[0]
                while version:
                    version = self._watch(version)
            except (OSError, http.client.HTTPException, ValueError) as error:
                logger.warning("%s: %s; again in %g s", self._path, error, pause_s)
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_S[1])

    def _list(self) -> str:
        with _Request(self._path) as answer:
            listed = json.load(answer)
        with self._lock:
            self._objects = {_key(item): item for item in listed["items"]}
        self.is_synced = True
        self._on_change()
        version: str = listed["metadata"]["resourceVersion"]
        return version

    def _watch(self, version: str) -> str:
        """Follow the changes after `version`; returns the newest version seen, "" to list again."""
        query = (
            f"watch=1&allowWatchBookmarks=true&timeoutSeconds={WATCH_S}&resourceVersion={version}"
        )
        join = "&" if "?" in self._path else "?"
        with _Request(f"{self._path}{join}{query}") as answer:
            while line := answer.readline():
                event = json.loads(line)
                item = event["object"]
                if event["type"] == "ERROR":
                    return ""
                version = item["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self._take(event["type"], item)
        return version

    def _take(self, kind: str, item: Manifest) -> None:
        with self._lock:
            if kind == "DELETED":
                self._objects.pop(_key(item), None)
            else:
                self._objects[_key(item)] = item
        self._on_change()


def _key(item: Manifest) -> tuple[str, str]:
    return item["metadata"]["namespace"], item["metadata"]["name"]


class _Request:
    """A GET to the API server with the pod's account; the answer's body as a file."""

    def __init__(self, path: str) -> None:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
        self._connection = http.client.HTTPSConnection(
            host, int(port), timeout=WATCH_S + 15, context=context
        )
        self._path = path

    def __enter__(self) -> http.client.HTTPResponse:
        # Read each time: the kubelet renews the token.
        token = (ACCOUNT / "token").read_text()
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        self._connection.request("GET", self._path, headers=headers)
        answer = self._connection.getresponse()
        if answer.status != 200:
            reason = answer.read(300).decode(errors="replace")
            self._connection.close()
            raise OSError(f"answered {answer.status}: {reason}")
        return answer

    def __exit__(self, *_: object) -> None:
        self._connection.close()
