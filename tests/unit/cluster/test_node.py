"""What runs on the node fits together: every file a component reads is written, every port is checked."""

import json
import re
from pathlib import Path

from tests.cluster import node
from tests.cluster.paths import Paths

PATHS = Paths(cache=Path("/cache"), state=Path("/state"), run=Path("/run/x"))
COMPONENTS = node.components(PATHS, "192.0.2.7")
FILES = node.config_files(PATHS, "192.0.2.7")


def _certificate_files() -> set[Path]:
    names = [certificate.name for certificate in node.certificates("192.0.2.7")]
    made = {f"{name}.{kind}" for name in [*names, "ca"] for kind in ("crt", "key")}
    made |= {"service-account.key", "service-account.pub"}
    return {PATHS.state / "pki" / name for name in made}


def test_every_file_in_a_command_line_or_config_is_written() -> None:
    written = set(FILES) | _certificate_files()
    text = " ".join([word for c in COMPONENTS for word in c.argv] + list(FILES.values()))
    named = {Path(path) for path in re.findall(r"/state/(?:pki|config)/[\w./-]+\.\w+", text)}
    assert named
    assert named <= written


def test_every_file_that_restarts_a_component_is_written() -> None:
    for component in COMPONENTS:
        assert set(component.files) <= set(FILES) | _certificate_files()


def test_kubeconfigs_name_certificates_that_exist() -> None:
    kubeconfigs = [text for file, text in FILES.items() if "kubeconfig" in file.name]
    assert len(kubeconfigs) == 5
    for text in kubeconfigs:
        (user,) = json.loads(text)["users"]
        assert Path(user["user"]["client-certificate"]) in _certificate_files()


def test_start_order_puts_the_store_before_the_api_and_the_api_before_its_clients() -> None:
    order = [component.name for component in COMPONENTS]
    assert order.index("etcd") < order.index("kube-apiserver")
    assert order.index("containerd") < order.index("kubelet")
    for client in ("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"):
        assert order.index("kube-apiserver") < order.index(client)


def test_api_certificate_covers_every_address_it_is_reached_under() -> None:
    (server,) = (c for c in node.certificates("192.0.2.7") if c.name == "apiserver")
    wanted = {
        "IP:127.0.0.1",
        "IP:192.0.2.7",
        f"IP:{node.API_SERVICE}",
        "DNS:kubernetes.default.svc",
    }
    assert wanted <= set(server.alternative_names)


def test_containerd_socket_path_fits_a_unix_address() -> None:
    assert len(str(Paths(Path("/cache")).containerd_socket)) < 108
