"""Takes the cluster on this machine away, whatever state it is in, and looks whether anything is left."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path

from tests.cluster.commands import try_run, wait_until
from tests.cluster.node import NAT_TABLE, POD_NETWORK
from tests.cluster.paths import Paths
from tests.cluster.processes import SHIM, find_components, find_processes, kill_all, stop

NFT_TABLES = (NAT_TABLE, "ip kube-proxy", "ip6 kube-proxy")
DISPOSABLE = ("etcd", "kubelet", "pki", "config", "cni", "pod-logs")


def take_down(paths: Paths) -> None:
    """End every process and remove every trace; idempotent, also after a crash. Images stay.

    Needs root. Raises `ClusterError` naming what could not be removed.
    """
    _end_processes()

    def is_clean() -> bool:
        _remove_traces(paths)
        return not find_leftovers(paths)

    # More than once: a cgroup or a mount is busy until the kernel has buried who was in it.
    wait_until(
        is_clean,
        within_s=10,
        what="something of the cluster cannot be removed",
        details=lambda: "\n".join(find_leftovers(paths)),
    )


def find_leftovers(paths: Paths) -> list[str]:
    """What of a cluster is still on this machine, one line each."""
    tables = (try_run(["nft", "list", "tables"]) or "").splitlines()
    return [
        *(f"process {process.pid} {process.program}" for process in find_processes()),
        *(f"mount {mount}" for mount in _mounts(paths)),
        *(f"network link {link}" for link in _pod_links()),
        *(f"nftables {table}" for table in tables if table.removeprefix("table ") in NFT_TABLES),
        *(f"cgroup {cgroup}" for cgroup in _pod_cgroups()),
        *(str(folder) for folder in (paths.run, paths.state / "kubelet") if folder.exists()),
    ]


def _remove_traces(paths: Paths) -> None:
    for mount in _mounts(paths):
        try_run(["umount", "--lazy", mount])
    for link in _pod_links():
        try_run(["ip", "link", "delete", link])
    for table in NFT_TABLES:
        try_run(["nft", f"delete table {table}"])
    for cgroup in _pod_cgroups():
        with contextlib.suppress(OSError):
            cgroup.rmdir()
    for folder in (*(paths.state / name for name in DISPOSABLE), paths.run):
        shutil.rmtree(folder, ignore_errors=True)
    _remove_log_links(paths)
    paths.kubeconfig.unlink(missing_ok=True)


def _end_processes() -> None:
    running = find_components()
    # First those who would start containers again, last those whom the others need for their end.
    for name in ("kubelet", "kube-proxy", "kube-scheduler", "kube-controller-manager"):
        if name in running:
            stop(running[name], patience_s=3)
    _kill_containers()
    kill_all([process.pid for process in find_processes() if process.program == SHIM])
    for name in ("kube-apiserver", "etcd", "containerd"):
        if name in running:
            stop(running[name], patience_s=3)
    # What they had started at that moment ends by itself, or here.
    wait_until(_kill_the_rest, within_s=20, what="end of the cluster's processes", every_s=0.05)


def _kill_the_rest() -> bool:
    rest = [process.pid for process in find_processes()]
    kill_all(rest)
    return not rest


def _kill_containers() -> None:
    def are_gone() -> bool:
        pids = _pids_in_pods()
        kill_all(pids)
        return not pids

    wait_until(are_gone, within_s=20, what="end of the containers", every_s=0.05)


def _pids_in_pods() -> list[int]:
    found: set[int] = set()
    for cgroup in _pod_cgroups():
        with contextlib.suppress(OSError):
            found.update(int(pid) for pid in (cgroup / "cgroup.procs").read_text().split())
    return sorted(found)


def _pod_cgroups() -> list[Path]:
    """The cgroups of all pods, the innermost first: one tree per controller in version 1, one in version 2."""
    tops = [Path("/sys/fs/cgroup/kubepods"), *Path("/sys/fs/cgroup").glob("*/kubepods")]
    # os.walk, not glob: it passes over what vanishes while it looks.
    return [Path(folder) for top in tops for folder, _, _ in os.walk(top, topdown=False)]


def _mounts(paths: Paths) -> list[str]:
    """Mount points under the cluster's folders, the innermost first."""
    points = mount_points(Path("/proc/self/mounts").read_text())
    ours = (f"{paths.state}/", f"{paths.run}/")
    return sorted((point for point in points if point.startswith(ours)), reverse=True)


def mount_points(table: str) -> list[str]:
    """The mount points of a mount table; a space in one is written `\\040` there (fstab(5))."""
    points = [line.split()[1] for line in table.splitlines()]
    return [re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point) for point in points]


def _pod_links() -> list[str]:
    """The host's ends of the pods' interfaces; they go with the pods, unless a crash left one behind."""
    routes = (try_run(["ip", "-4", "route", "show", "root", POD_NETWORK]) or "").splitlines()
    words = [route.split() for route in routes]
    return [route[route.index("dev") + 1] for route in words if "dev" in route]


def _remove_log_links(paths: Paths) -> None:
    """The kubelet links each container's log there, wherever `podLogsDir` is."""
    for link in Path("/var/log/containers").glob("*.log"):
        if link.is_symlink() and os.readlink(link).startswith(str(paths.state)):
            link.unlink()
