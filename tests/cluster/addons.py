"""The pods every cluster has beside the system's own processes: name service, ingress, Prometheus."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from tests.cluster.images import full_name
from tests.cluster.paths import HERE

# manifest → the Deployment it waits for
DEPLOYMENTS = {
    "coredns": ("kube-system", "coredns"),
    "ingress": ("ingress", "test-ingress"),
    "prometheus": ("monitoring", "prometheus"),
}
READY_TIMEOUT_S = 120

Kubectl = Callable[..., str]


def apply_addons(
    kubectl: Kubectl, names: Sequence[str], *, images: Mapping[str, str] | None = None
) -> None:
    """Apply the manifests; `images` replaces references that another cluster gets elsewhere."""
    text = "---\n".join((HERE / "manifests" / f"{name}.yaml").read_text() for name in names)
    for ours, theirs in (images or {}).items():
        text = text.replace(f"image: {ours}\n", f"image: {theirs}\n")
    kubectl("apply", "-f", "-", stdin=text.encode())


def wait_for_addons(kubectl: Kubectl, names: Sequence[str]) -> None:
    for name in names:
        namespace, deployment = DEPLOYMENTS[name]
        kubectl(
            "--namespace", namespace, "rollout", "status", f"deployment/{deployment}",
            f"--timeout={READY_TIMEOUT_S}s",
            timeout_s=READY_TIMEOUT_S + 10,
        )  # fmt: skip


def restart_users(kubectl: Kubectl, changed: Sequence[str]) -> None:
    """Restart the Deployments whose pods run one of these images: the name stayed, the content did not.

    Those that the operator made are left alone: rolling them is its affair.
    """
    if not changed:
        return
    for deployment in json.loads(kubectl("get", "deployments", "-A", "-o", "json"))["items"]:
        metadata = deployment["metadata"]
        labels = metadata.get("labels") or {}
        containers = deployment["spec"]["template"]["spec"]["containers"]
        uses = {full_name(container["image"]) for container in containers}
        if uses & set(changed) and labels.get("app.kubernetes.io/managed-by") != "wsgiapp-operator":
            target = f"deployment/{metadata['name']}"
            kubectl("--namespace", metadata["namespace"], "rollout", "restart", target)
            print(
                f"  ok restarted {metadata['namespace']}/{metadata['name']}: new image", flush=True
            )
