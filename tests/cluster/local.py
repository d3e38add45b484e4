"""The cluster on this machine: brings what runs to what should run.

`up` compares and repairs: a missing or changed process is started, the rest is left alone. When nothing
runs (first start, reboot, after `down`) it begins with an empty cluster; images that containerd holds stay.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path

from tests.cluster import golang, packages
from tests.cluster.commands import ClusterError, last_lines, run, step, try_run, wait_until
from tests.cluster.node import (
    NAT_TABLE,
    NODE,
    POD_NETWORK,
    PORTS,
    Component,
    certificates,
    components,
    config_files,
    nat_rules,
)
from tests.cluster.oci import Image, write_archive
from tests.cluster.paths import Paths
from tests.cluster.pki import write_pki
from tests.cluster.processes import (
    Running,
    find_components,
    fingerprint,
    is_alive,
    log_of,
    start,
    stop,
)
from tests.cluster.teardown import take_down


def build(paths: Paths) -> None:
    """All programs the cluster runs, in the order in which a start needs them."""
    packages.install_host_packages(paths)
    packages.install_kubectl_and_helm(paths)
    golang.build(golang.PROGRAMS, paths)


def up(paths: Paths) -> None:
    """Bring the node's processes up; returns when the API answers and the node is Ready."""
    running = find_components()
    if not running:
        take_down(paths)
        _refuse_taken_ports()
    node_ip = find_node_ip()
    write_pki(paths.state / "pki", certificates(node_ip))
    for file, text in config_files(paths, node_ip).items():
        _write(file, text)
    _prepare_network()
    for component in components(paths, node_ip):
        _bring_up(component, running.get(component.name), paths)
        if component.name == "kube-apiserver":
            _wait_for_api(paths)
    with step("node Ready"):
        wait_until(
            lambda: _is_node_ready(paths),
            within_s=120,
            what="the node is not Ready",
            details=lambda: last_lines(log_of("kubelet", paths).read_text(errors="replace")),
        )


def _refuse_taken_ports() -> None:
    for port, who in PORTS.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise ClusterError(
                    f"port {port}, wanted by {who}, is in use by another program; `ss -ltnp sport = :{port}`"
                    " names it; end it, or use CLUSTER=existing"
                ) from error


def find_node_ip() -> str:
    """The address under which pods reach this machine: the first global IPv4 address."""
    for line in run(["ip", "-4", "-o", "address", "show", "scope", "global"]).splitlines():
        address = ipaddress.ip_interface(line.split()[3]).ip
        if address not in ipaddress.ip_network(POD_NETWORK):
            return str(address)
    raise ClusterError(
        "this machine has no IPv4 address but loopback, and pods need one to reach the API server;"
        " add one: ip link add dummy0 type dummy; ip address add 192.0.2.2/32 dev dummy0; ip link set dummy0 up"
    )


def _write(file: Path, text: str) -> None:
    if file.exists() and file.read_text() == text:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(file.name + ".new")
    fresh.touch(mode=0o600)
    fresh.write_text(text)
    fresh.replace(file)


def _prepare_network() -> None:
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    try_run(["nft", f"delete table {NAT_TABLE}"])
    run(["nft", "-f", "-"], stdin=nat_rules().encode())


def _bring_up(component: Component, running: Running | None, paths: Paths) -> None:
    if running is not None:
        if running.fingerprint == fingerprint(component):
            return
        stop(running)
    with step(f"start {component.name}"):
        pid = start(component, paths)
        if component.name == "containerd":
            wait_until(
                lambda: _answers(paths.containerd_socket) or not is_alive(pid),
                within_s=30,
                what="containerd does not answer",
            )
        if not is_alive(pid):
            log = log_of(component.name, paths)
            tail = last_lines(log.read_text(errors="replace"))
            raise ClusterError(f"{component.name} ended at once:\n{tail}\nall of it: {log}")


def _answers(address: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(address)) == 0


def _wait_for_api(paths: Paths) -> None:
    with step("API server ready"):
        wait_until(
            lambda: try_run([*_kubectl(paths), "get", "--raw", "/readyz"]) is not None,
            within_s=90,
            what="the API server is not ready",
            details=lambda: last_lines(log_of("kube-apiserver", paths).read_text(errors="replace")),
        )


def _is_node_ready(paths: Paths) -> bool:
    ready = 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'
    return try_run([*_kubectl(paths), "get", "node", NODE, "-o", ready]) == "True"


def _kubectl(paths: Paths) -> list[str]:
    return [str(paths.bin / "kubectl"), f"--kubeconfig={paths.kubeconfig}"]


def restart(name: str, paths: Paths) -> None:
    """End a component and start it again; returns when it runs, the API server when it is ready."""
    if running := find_components().get(name):
        stop(running)
    (component,) = (c for c in components(paths, find_node_ip()) if c.name == name)
    _bring_up(component, None, paths)
    if name == "kube-apiserver":
        _wait_for_api(paths)


def load(images: Sequence[Image], paths: Paths) -> list[str]:
    """Import those images that containerd has not under their name and id; returns their names."""
    ctr = [str(paths.bin / "ctr"), f"--address={paths.containerd_socket}", "--namespace=k8s.io"]
    listed = run([*ctr, "images", "list"]).splitlines()[1:]
    held = {words[0]: words[2] for words in map(str.split, listed)}
    changed = [
        image
        for image in images
        if not held.get(image.name) == held.get(image.image_id) == image.digest
    ]
    if changed:
        with step(f"load {len(changed)} images"):
            archive = paths.images / "load.tar"
            write_archive(changed, archive)
            run([*ctr, "images", "import", "--local", archive])
            archive.unlink()
    return [image.name for image in changed]


def is_running(paths: Paths) -> bool:
    """Whether every component of the node runs."""
    running = find_components()
    wanted = components(paths, "")
    return all(component.name in running for component in wanted)
