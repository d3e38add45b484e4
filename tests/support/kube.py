"""The cluster as a user has it: kubectl for what is changed, `kubectl proxy` for what is read.

Reading through one proxy keeps a connection and no client program per look, so that watching a
rollout costs the machine next to nothing; and kubectl has done the authentication, whatever the
kubeconfig needs. Owns no knowledge of WsgiApps.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.wait import NotYetError, wait_until

Manifest = Mapping[str, Any]

_ROOT = Path(__file__).resolve().parents[2]  # file names are relative to it
_PREFIXES = {
    "configmaps": "api/v1",
    "endpointslices": "apis/discovery.k8s.io/v1",
    "events": "api/v1",
    "pods": "api/v1",
    "secrets": "api/v1",
    "serviceaccounts": "api/v1",
    "services": "api/v1",
    "deployments": "apis/apps/v1",
    "ingresses": "apis/networking.k8s.io/v1",
    "leases": "apis/coordination.k8s.io/v1",
    "poddisruptionbudgets": "apis/policy/v1",
    "wsgiapps": "apis/wsgi.dev/v1alpha1",
}


class KubectlError(Exception):
    """kubectl ended with an error; the text is what it printed."""


class NotFoundError(NotYetError):
    """The object does not exist (yet)."""


class UnavailableError(NotYetError):
    """The API server does not answer at the moment."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Kube:
    """`with Kube(kubectl, kubeconfig) as kube:`; methods raise the errors above."""

    def __init__(self, kubectl: Path, kubeconfig: Path) -> None:
        self._kubectl = kubectl
        self._environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="kubectl-proxy-")
        self._socket = Path(self._folder.name, "socket")
        log = Path(self._folder.name, "log")
        with log.open("w") as out:
            self._proxy = subprocess.Popen(
                [self._kubectl, "proxy", f"--unix-socket={self._socket}"],
                env=self._environment,
                stdout=out,
                # An API server that is away is told by UnavailableError, not line by line.
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until(self._socket.exists, within_s=20, what="kubectl proxy")
        except TimeoutError as error:
            self._proxy.kill()
            self._proxy.wait()
            raise KubectlError(f"{error}; it printed: {log.read_text()}") from error
        self._connection = _UnixConnection(self._socket)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()
        self._proxy.terminate()
        self._proxy.wait()
        self._folder.cleanup()

    # --- changing: what a user types ----------------------------------------------------------

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout_s: float = 120) -> str:
        """Run kubectl and return what it printed; KubectlError with its error output."""
        done = subprocess.run(
            [self._kubectl, *arguments],
            cwd=_ROOT,
            env=self._environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode != 0:
            raise KubectlError(done.stderr.strip() or f"exit code {done.returncode}")
        return done.stdout

    def apply(self, *manifests: Manifest, namespace: str) -> str:
        """`kubectl apply -f -`."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
        return self.kubectl("apply", "-n", namespace, "-f", "-", stdin=text)

    def patch(self, kind: str, name: str, change: Manifest, *, namespace: str) -> None:
        """Merge a change into an object."""
        self.kubectl(
            "patch", kind, name, "-n", namespace, "--type=merge", f"--patch={json.dumps(change)}"
        )

    def follow(self, *arguments: str, within_s: float) -> Iterator[str]:
        """Yield what kubectl prints, line by line, until the caller stops or time is up."""
        process = subprocess.Popen(
            [self._kubectl, *arguments],
            cwd=_ROOT,
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        clock = threading.Timer(within_s, process.kill)
        clock.start()
        try:
            assert process.stdout is not None
            with process.stdout as lines:
                yield from (line.rstrip() for line in lines)
        finally:
            clock.cancel()
            process.kill()
            process.wait()

    # --- reading ------------------------------------------------------------------------------

    def get(self, kind: str, name: str, *, namespace: str) -> dict[str, Any]:
        """Return one object; NotFoundError, UnavailableError."""
        return self._read(f"/{_PREFIXES[kind]}/namespaces/{namespace}/{kind}/{name}")

    def list(self, kind: str, *, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        """Return the objects of a namespace, those that the label selector names."""
        query = f"?labelSelector={selector}" if selector else ""
        items = self._read(f"/{_PREFIXES[kind]}/namespaces/{namespace}/{kind}{query}")["items"]
        return list(items)

    def fetch_from_pod(self, pod: str, port: int, path: str, *, namespace: str) -> tuple[int, str]:
        """Return status and text of a GET, asked of a pod through the API server."""
        status, body = self._ask(f"/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{path}")
        return status, body.decode(errors="replace")

    def is_ready(self) -> bool:
        """Whether the API server says that it can serve."""
        try:
            return self._ask("/readyz")[0] == 200
        except UnavailableError:
            return False

    def _read(self, path: str) -> dict[str, Any]:
        status, body = self._ask(path)
        if status == 404:
            raise NotFoundError(path)
        if status >= 500 or status == 429:
            raise UnavailableError(f"{path}: status {status}")
        if status != 200:
            raise KubectlError(f"{path}: status {status}: {body.decode(errors='replace')[:300]}")
        value: dict[str, Any] = json.loads(body)
        return value

    def _ask(self, path: str) -> tuple[int, bytes]:
        # A kept connection may have been closed meanwhile: once more on a new one.
        for last in (False, True):
            try:
                self._connection.request("GET", path, headers={"Accept": "application/json"})
                response = self._connection.getresponse()
                return response.status, response.read()
            except (OSError, http.client.HTTPException) as error:
                with contextlib.suppress(OSError):
                    self._connection.close()
                if last:
                    raise UnavailableError(f"{path}: {error}") from error
        raise AssertionError("unreachable")
