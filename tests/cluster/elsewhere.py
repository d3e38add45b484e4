"""The same face for clusters that others run: kind in Docker, or whatever the current context names.

Images come from the Dockerfiles, the ingress from the F5 NGINX ingress controller's chart; see README.md.
"""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

from tests.cluster import golang, packages
from tests.cluster.addons import apply_addons, wait_for_addons
from tests.cluster.cluster import Cluster
from tests.cluster.commands import ClusterError, run, run_logged, step, try_run, wait_until
from tests.cluster.contents import read_contents
from tests.cluster.images import prepare
from tests.cluster.paths import TREE, Paths

KIND_NAME = "wsgiapp"
KIND_NODE_PORT = 30080
PUBLIC_IMAGES = {"wsgiapp/prometheus:1": "prom/prometheus:v3.16.0"}
INGRESS_CHART = ("nginx-ingress", "--repo=https://helm.nginx.com/stable", "--version=2.7.2")


class KindCluster(Cluster):
    """kind (Kubernetes in Docker) with the F5 NGINX ingress controller."""

    ingress_url = "http://127.0.0.1:18080"

    @property
    def kind(self) -> Path:
        return self.paths.bin / "kind"

    def build(self) -> None:
        packages.install_kubectl_and_helm(self.paths)
        golang.build([golang.KIND], self.paths)

    def up(self) -> None:
        self.build()
        _require_docker("CLUSTER=kind")
        if not self._exists():
            create = ["create", "cluster", f"--name={KIND_NAME}", "--config=-", "--wait=180s"]
            config = json.dumps(_kind_config()).encode()
            with step("create the kind cluster"):
                run([self.kind, *create, f"--kubeconfig={self.kubeconfig}"], stdin=config)
        self.load_images()
        with step("F5 NGINX ingress controller"):
            values = {
                "controller.service.type": "NodePort",
                "controller.service.httpPort.nodePort": str(KIND_NODE_PORT),
                "controller.enableSnippets": "true",
            }
            install = ["upgrade", "--install", "ingress", *INGRESS_CHART, "--wait"]
            install += ["--namespace=ingress", "--create-namespace"]
            install += [f"--set={name}={value}" for name, value in values.items()]
            run([self.helm, f"--kubeconfig={self.kubeconfig}", *install])
        apply_addons(self.run_kubectl, ("prometheus",), images=PUBLIC_IMAGES)
        with step("Prometheus ready"):
            wait_for_addons(self.run_kubectl, ("prometheus",))

    def down(self) -> None:
        run(
            [
                self.kind,
                "delete",
                "cluster",
                f"--name={KIND_NAME}",
                f"--kubeconfig={self.kubeconfig}",
            ]
        )

    def is_running(self) -> bool:
        return self.kind.exists() and self._exists()

    def _exists(self) -> bool:
        return KIND_NAME in run([self.kind, "get", "clusters"]).split()

    def load_images(self) -> list[str]:
        names = build_with_docker(self.paths)
        with step("load the images into kind"):
            run([self.kind, "load", "docker-image", f"--name={KIND_NAME}", *names])
        return names

    def restart_apiserver(self) -> None:
        node = f"{KIND_NAME}-control-plane"
        find = ["docker", "exec", node, "crictl", "ps", "--name=kube-apiserver", "--quiet"]
        run(["docker", "exec", node, "crictl", "stop", *run(find).split()])
        _wait_for_api(self)


class ExistingCluster(Cluster):
    """The cluster of the current context. It brings its own ingress and its own way to get images."""

    def __init__(self, paths: Paths) -> None:
        super().__init__(paths)
        self.ingress_url = os.environ.get("WSGIAPP_INGRESS_URL", "")

    @property
    def kubeconfig(self) -> Path:
        """A copy: the tests stay with the cluster they began with when the context changes."""
        return self.paths.cache / "kubeconfig-existing"

    def build(self) -> None:
        packages.install_kubectl_and_helm(self.paths)

    def up(self) -> None:
        self.build()
        if not self.ingress_url:
            raise ClusterError(
                "CLUSTER=existing needs WSGIAPP_INGRESS_URL, where its nginx ingress (class nginx) is reached"
            )
        config = run([self.kubectl, "config", "view", "--raw", "--minify", "--flatten"])
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(config)
        self.run_kubectl("get", "ingressclass", "nginx")
        self.load_images()
        apply_addons(self.run_kubectl, ("prometheus",), images=PUBLIC_IMAGES)
        with step("Prometheus ready"):
            wait_for_addons(self.run_kubectl, ("prometheus",))

    def down(self) -> None:
        """Take away what `up` added; the cluster itself is not ours."""
        if self.kubeconfig.exists():
            self.run_kubectl(
                "delete", "--ignore-not-found", "-f", "-", stdin=_prometheus_manifest()
            )
            self.kubeconfig.unlink()

    def is_running(self) -> bool:
        return self.kubeconfig.exists() and _answers(self)

    def load_images(self) -> list[str]:
        """Hand each image to the command in `WSGIAPP_IMAGE_LOADER`, as in "minikube image load"."""
        loader = shlex.split(os.environ.get("WSGIAPP_IMAGE_LOADER", ""))
        if not loader:
            raise ClusterError(
                "CLUSTER=existing needs WSGIAPP_IMAGE_LOADER, a command that takes an image's name and brings"
                " the image to the nodes, as in 'minikube image load' or 'k3d image import'"
            )
        names = build_with_docker(self.paths)
        for name in names:
            with step(f"load {name}"):
                run([*loader, name])
        return names

    def restart_apiserver(self) -> None:
        raise ClusterError("the API server of an existing cluster is not ours to restart")


def build_with_docker(paths: Paths) -> list[str]:
    """Build the images that have a Dockerfile; returns their names."""
    _require_docker("building the images")
    specs = [spec for spec in read_contents().images if spec.dockerfile]
    for spec in specs:
        prepare(spec, TREE)
        log = paths.logs / f"docker-{spec.name.replace('/', '-')}.log"
        with step(f"docker build {spec.name}"):
            argv = [
                "docker",
                "build",
                "--tag",
                spec.name,
                "--file",
                str(spec.dockerfile),
                str(TREE),
            ]
            run_logged(argv, log, cwd=TREE)
    return [spec.name for spec in specs]


def _require_docker(what: str) -> None:
    try:
        run(["docker", "info"])
    except ClusterError as error:
        raise ClusterError(
            f"{what} needs Docker with a running daemon; without one use CLUSTER=local\n{error}"
        ) from error


def _kind_config() -> dict[str, object]:
    mapping = {"containerPort": KIND_NODE_PORT, "hostPort": 18080, "listenAddress": "127.0.0.1"}
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "nodes": [{"role": "control-plane", "extraPortMappings": [mapping]}],
    }


def _prometheus_manifest() -> bytes:
    return (Path(__file__).parent / "manifests" / "prometheus.yaml").read_bytes()


def _answers(cluster: Cluster) -> bool:
    ready = ["get", "--raw", "/readyz"]
    return try_run([cluster.kubectl, f"--kubeconfig={cluster.kubeconfig}", *ready]) is not None


def _wait_for_api(cluster: Cluster) -> None:
    wait_until(lambda: _answers(cluster), within_s=120, what="the API server is not ready")
