"""What a typical Deployment has in its pods, a WsgiApp has too, and serves."""

from __future__ import annotations

from typing import Any

from tests.e2e import steady_app
from tests.e2e.conftest import AppMaker
from tests.support.kube import Kube

CONFINED: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
SMALL = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}}


def _helper(name: str, code: str) -> dict[str, Any]:
    return {
        "name": name,
        "image": steady_app.PLAIN_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", code],
        "resources": SMALL,
        "securityContext": CONFINED,
        "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
    }


def test_labels_volumes_init_container_and_sidecar_of_the_pod_template(
    steady: AppMaker, kube: Kube, namespace: str
) -> None:
    template = {
        "metadata": {"labels": {"team": "payments"}, "annotations": {"example.com/cost": "web"}},
        "spec": {
            "securityContext": {"runAsUser": 12345},
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "initContainers": [_helper("prepare", "open('/shared/ready', 'w').write('yes')")],
            "containers": [
                {"name": "app", "volumeMounts": [{"name": "shared", "mountPath": "/shared"}]},
                _helper("sidecar", "import time\nwhile True: time.sleep(60)"),
            ],
            "volumes": [{"name": "shared", "emptyDir": {"sizeLimit": "16Mi"}}],
        },
    }
    app = steady(replicas=1, podTemplate=template)
    (pod,) = app.pods()
    assert pod["metadata"]["labels"]["team"] == "payments"
    assert pod["metadata"]["annotations"]["example.com/cost"] == "web"
    names = {each["name"] for each in pod["spec"]["containers"]}
    assert names == {"app", "sidecar"}
    inside = ("exec", "-n", namespace, pod["metadata"]["name"], "-c", "app", "--")
    seen = "import os; print(open('/shared/ready').read(), os.getuid())"
    assert kube.kubectl(*inside, "python3", "-c", seen).split() == ["yes", "12345"]

    # In-place reload, and what is no longer in the template goes.
    before = app.reload_hash()
    kube.apply(steady_app.build_code(steady_app.build_release("2")), namespace=namespace)
    app.wait_reload(after=before, status="True", within_s=60)
    kube.patch("wsgiapp", app.name, {"spec": {"podTemplate": None}}, namespace=namespace)
    app.wait_condition("Ready", "True", within_s=120)
    deployment = kube.get("deployments", app.name, namespace=namespace)
    spec = deployment["spec"]["template"]["spec"]
    assert [each["name"] for each in spec["containers"]] == ["app"]
    assert [each["name"] for each in spec["initContainers"]][-1] == "agent"
