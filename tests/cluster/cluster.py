"""One face for three clusters: on this machine, kind, or the one that the current context names.

The e2e tests and the demo know only `Cluster`; which one it is comes from `CLUSTER` (local, kind, existing).
"""

from __future__ import annotations

import abc
import json
import os
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.cluster import local
from tests.cluster.addons import apply_addons, restart_users, wait_for_addons
from tests.cluster.commands import ClusterError, exclusive, run, step
from tests.cluster.contents import read_contents
from tests.cluster.images import build_images
from tests.cluster.paths import Paths
from tests.cluster.teardown import take_down


class Cluster(abc.ABC):
    """A Kubernetes with an nginx ingress and Prometheus. All methods raise `ClusterError`."""

    ingress_url: str

    def __init__(self, paths: Paths) -> None:
        self.paths = paths

    @staticmethod
    def from_env(environ: Mapping[str, str] = os.environ) -> Cluster:
        """The cluster that `CLUSTER` names; local when it is unset."""
        from tests.cluster.elsewhere import ExistingCluster, KindCluster

        kinds: dict[str, type[Cluster]] = {
            "local": LocalCluster,
            "kind": KindCluster,
            "existing": ExistingCluster,
        }
        name = environ.get("CLUSTER") or "local"
        if name not in kinds:
            raise ClusterError(f"CLUSTER is {name!r}; use {', '.join(kinds)}")
        return kinds[name](Paths.from_environ(environ))

    @property
    def kubeconfig(self) -> Path:
        return self.paths.kubeconfig

    @property
    def kubectl(self) -> Path:
        return self.paths.bin / "kubectl"

    @property
    def helm(self) -> Path:
        return self.paths.bin / "helm"

    @abc.abstractmethod
    def build(self) -> None:
        """Get and build the programs the cluster needs; nothing is started."""

    @abc.abstractmethod
    def up(self) -> None:
        """Bring it up, images and add-ons included; safe to repeat at any time."""

    @abc.abstractmethod
    def down(self) -> None:
        """Take it down; safe to repeat."""

    @abc.abstractmethod
    def is_running(self) -> bool:
        """Whether it is up as far as can be told without waiting."""

    @abc.abstractmethod
    def load_images(self) -> list[str]:
        """Build the images that changed and make them known to the cluster; returns their names."""

    @abc.abstractmethod
    def restart_apiserver(self) -> None:
        """Restart the API server; returns when it answers again."""

    def run_kubectl(self, *args: str, stdin: bytes | None = None, timeout_s: float = 180) -> str:
        """Run kubectl against this cluster and return its output."""
        command: list[str | Path] = [self.kubectl, f"--kubeconfig={self.kubeconfig}"]
        return run([*command, *args], stdin=stdin, timeout_s=timeout_s)

    def prometheus_query(self, promql: str) -> list[dict[str, Any]]:
        """The result vector of an instant query, as Prometheus' HTTP API gives it.

        Each item is `{"metric": {label: value}, "value": [unix_time, "number"]}`.
        """
        return self._ask_prometheus("query", {"query": promql})

    def prometheus_query_range(
        self, promql: str, start: int, end: int, step_s: int
    ) -> list[dict[str, Any]]:
        """The result matrix of a range query; start and end in Unix time.

        Each item is `{"metric": {label: value}, "values": [[unix_time, "number"], …]}`.
        """
        span = {"start": str(start), "end": str(end), "step": str(step_s)}
        return self._ask_prometheus("query_range", {"query": promql, **span})

    def _ask_prometheus(self, path: str, parameters: dict[str, str]) -> list[dict[str, Any]]:
        service = "/api/v1/namespaces/monitoring/services/prometheus:9090/proxy"
        query = urllib.parse.urlencode(parameters)
        answer = json.loads(self.run_kubectl("get", "--raw", f"{service}/api/v1/{path}?{query}"))
        if answer["status"] != "success":
            raise ClusterError(f"Prometheus refused {parameters}: {answer.get('error')}")
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result


class LocalCluster(Cluster):
    """Real Kubernetes processes on this machine (Linux, root); see README.md."""

    ingress_url = "http://127.0.0.1:18080"
    addons = ("coredns", "ingress", "prometheus")

    def build(self) -> None:
        with exclusive(self.paths.cache / "build.lock"):
            local.build(self.paths)

    def up(self) -> None:
        _refuse_without_root()
        self.build()
        with exclusive(self.paths.cache / "cluster.lock"):
            local.up(self.paths)
            # Images first: a pod that misses its image waits ten seconds and more for the next try.
            _, missing = self._load_images()
            apply_addons(self.run_kubectl, self.addons)
        with step("system pods ready"):
            wait_for_addons(self.run_kubectl, self.addons)
        _refuse_missing(missing)

    def down(self) -> None:
        _refuse_without_root()
        with exclusive(self.paths.cache / "cluster.lock"), step("take the cluster down"):
            take_down(self.paths)

    def is_running(self) -> bool:
        return local.is_running(self.paths)

    def load_images(self) -> list[str]:
        if not self.is_running():
            raise ClusterError("the cluster is not running; start it: make cluster")
        with exclusive(self.paths.cache / "cluster.lock"):
            changed, missing = self._load_images()
        _refuse_missing(missing)
        return changed

    def _load_images(self) -> tuple[list[str], list[str]]:
        """Load what changed and can be built; returns the names, and why others could not be built."""
        images, missing = build_images(read_contents(), self.paths)
        changed = local.load(images, self.paths)
        restart_users(self.run_kubectl, changed)
        return changed, missing

    def restart_apiserver(self) -> None:
        with exclusive(self.paths.cache / "cluster.lock"):
            local.restart("kube-apiserver", self.paths)


def _refuse_without_root() -> None:
    if os.geteuid() != 0:
        raise ClusterError("the local cluster needs root; run as root, or use CLUSTER=kind")


def _refuse_missing(missing: list[str]) -> None:
    if missing:
        raise ClusterError("the cluster runs, but without these images:\n" + "\n".join(missing))
