"""A control plane of its own for the campaign: etcd, API server, controllers, scheduler, and kwok.

The real programs, on ports of their own and in a folder that goes with them, so it runs next to the
cluster of `make cluster` or without one. Nodes and kubelets do not exist: kwok (stages.yaml) says that
pods run. Of the controllers those run that a WsgiApp's resources need; what would only cost the machine
(endpoint slices, garbage collection, token cleaning) does not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.cluster.commands import ClusterError, last_lines, wait_until
from tests.cluster.node import Certificate, to_yaml
from tests.cluster.paths import Paths
from tests.cluster.pki import write_pki

ETCD_PORT, PEER_PORT, API_PORT = 22379, 22380, 26443
URL = f"https://127.0.0.1:{API_PORT}"
STAGES = Path(__file__).with_name("stages.yaml")
CONTROLLERS = (
    "deployment-controller,replicaset-controller,disruption-controller,namespace-controller"
)
_HASTE = ("--kube-api-qps=2000", "--kube-api-burst=4000")


@dataclass(frozen=True)
class Credentials:
    """Files of a client that may do everything."""

    authority: Path
    certificate: Path
    key: Path
    kubeconfig: Path


class ControlPlane:
    """`with ControlPlane(paths) as plane:`; ends every process and removes the folder at the end."""

    def __init__(self, paths: Paths) -> None:
        self._bin = paths.bin
        self._processes: list[tuple[str, subprocess.Popen[bytes]]] = []

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="wsgiapp-scale-"))
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    @property
    def credentials(self) -> Credentials:
        pki = self.folder / "pki"
        return Credentials(
            pki / "ca.crt", pki / "admin.crt", pki / "admin.key", self.folder / "kubeconfig"
        )

    def _start(self) -> None:
        pki = self.folder / "pki"
        names = ("IP:127.0.0.1", "DNS:localhost")
        write_pki(
            pki,
            [
                Certificate("apiserver", "kube-apiserver", alternative_names=names),
                Certificate("admin", "admin", "system:masters"),
            ],
        )
        self.credentials.kubeconfig.write_text(to_yaml(kubeconfig(self.credentials)))
        kube, config = str(self._bin / "kube"), f"--kubeconfig={self.credentials.kubeconfig}"
        self._run("etcd", kube, "etcd", *self._etcd_flags())
        self._run("kube-apiserver", kube, "kube-apiserver", *self._api_flags(pki))
        self._wait_for(
            lambda: self.kubectl("get", "--raw", "/readyz") is not None, "kube-apiserver"
        )
        self._run(
            "kube-controller-manager", kube, "kube-controller-manager", config, *_HASTE,
            "--leader-elect=false", "--secure-port=0", f"--controllers={CONTROLLERS}",
            "--concurrent-deployment-syncs=16", "--concurrent-replicaset-syncs=16",
        )  # fmt: skip
        self._run(
            "kube-scheduler", kube, "kube-scheduler", config, *_HASTE,
            "--leader-elect=false", "--secure-port=0",
        )  # fmt: skip
        self._run(
            "kwok", str(self._bin / "kwok"), config, f"--config={STAGES}", "--manage-all-nodes=true",
            "--node-lease-duration-seconds=0", "--enable-crds=", "--server-address=",
        )  # fmt: skip

    def _etcd_flags(self) -> tuple[str, ...]:
        clients, peers = f"http://127.0.0.1:{ETCD_PORT}", f"http://127.0.0.1:{PEER_PORT}"
        return (
            f"--data-dir={self.folder}/etcd", "--unsafe-no-fsync", "--log-level=warn",
            "--quota-backend-bytes=8589934592",
            f"--listen-client-urls={clients}", f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
        )  # fmt: skip

    def _api_flags(self, pki: Path) -> tuple[str, ...]:
        return (
            f"--etcd-servers=http://127.0.0.1:{ETCD_PORT}", f"--secure-port={API_PORT}",
            "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            f"--tls-cert-file={pki}/apiserver.crt", f"--tls-private-key-file={pki}/apiserver.key",
            f"--client-ca-file={pki}/ca.crt",
            f"--service-account-key-file={pki}/service-account.pub",
            f"--service-account-signing-key-file={pki}/service-account.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=RBAC",
            # Pods do without service accounts' tokens, and a default account in each namespace; no controller runs that
            # takes away the taint of a new node.
            "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition", "--profiling=false",
        )  # fmt: skip

    def _run(self, name: str, *argv: str) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        self._processes.append((name, process))

    def _wait_for(self, condition: Callable[[], bool], name: str) -> None:
        log = self.folder / f"{name}.log"
        wait_until(
            condition, within_s=90, what=f"{name} is not ready",
            details=lambda: last_lines(log.read_text(errors="replace")),
        )  # fmt: skip

    def check(self) -> None:
        """Raise ClusterError when a process has ended."""
        for name, process in self._processes:
            if process.poll() is not None:
                tail = last_lines((self.folder / f"{name}.log").read_text(errors="replace"))
                raise ClusterError(f"{name} ended with {process.returncode}:\n{tail}")

    def install_crd(self, path: Path) -> None:
        """Apply a CRD of this project's group and wait until its objects can be made."""
        self._wait_for(
            lambda: self.kubectl("apply", "--server-side", "-f", str(path)) is not None,
            "kube-apiserver",
        )
        self._wait_for(
            lambda: self.kubectl("get", "--raw", "/apis/wsgi.dev/v1alpha1/wsgiapps") is not None,
            "kube-apiserver",
        )

    def kubectl(self, *arguments: str) -> str | None:
        """Return what kubectl prints; None where it fails."""
        done = subprocess.run(
            [self._bin / "kubectl", f"--kubeconfig={self.credentials.kubeconfig}", *arguments],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.stdout if done.returncode == 0 else None

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU seconds that each process has used."""
        return {name: cpu_s(process.pid) for name, process in self._processes}

    def _stop(self) -> None:
        for _, process in reversed(self._processes):
            process.terminate()
        for _, process in reversed(self._processes):
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if os.environ.get("KEEP_SCALE_LOGS"):
            print(f"  logs: {self.folder}", file=sys.stderr)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


def kubeconfig(credentials: Credentials) -> dict[str, object]:
    cluster = {"server": URL, "certificate-authority": str(credentials.authority)}
    user = {
        "client-certificate": str(credentials.certificate),
        "client-key": str(credentials.key),
    }
    return {
        "apiVersion": "v1", "kind": "Config", "current-context": "scale",
        "clusters": [{"name": "scale", "cluster": cluster}],
        "users": [{"name": "admin", "user": user}],
        "contexts": [{"name": "scale", "context": {"cluster": "scale", "user": "admin"}}],
    }  # fmt: skip


def cpu_s(pid: int) -> float:
    """Return user and system CPU seconds of a live process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_s(since: float) -> float:
    return time.monotonic() - since
