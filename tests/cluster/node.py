"""What runs on the one node, as values: certificates wanted, config files, command lines. Pure.

`local.py` writes and starts it. The odd settings are for containers and small virtual machines, where
cgroup v1, swap and a missing CAP_SYS_RESOURCE are met; they do no harm elsewhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.paths import Paths

NODE = "node1"
POD_NETWORK = "10.244.0.0/16"
SERVICE_NETWORK = "10.96.0.0/16"
API_SERVICE = "10.96.0.1"
DNS_SERVICE = "10.96.0.10"
NAT_TABLE = "ip wsgiapp"
PAUSE_IMAGE = "docker.io/wsgiapp/pause:1"
API_URL = "https://127.0.0.1:6443"
# Ports of the host that must be free, and who takes them.
PORTS = {
    2379: "etcd",
    2380: "etcd",
    6443: "kube-apiserver",
    10250: "kubelet",
    10256: "kube-proxy",
    10257: "kube-controller-manager",
    10259: "kube-scheduler",
    18080: "the ingress controller",
    18443: "the ingress controller's TLS",
}


OPERATOR = "system:serviceaccount:wsgiapp-system:wsgiapp-operator"  # as the chart names it


@dataclass(frozen=True)
class Certificate:
    """A client or server certificate of the cluster's own authority (X.509 subject CN and O)."""

    name: str
    common_name: str
    organization: str = ""
    alternative_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Component:
    """A process of the node; `files` are what it reads at its start (a change restarts it)."""

    name: str
    argv: tuple[str, ...]
    files: tuple[Path, ...] = ()


def certificates(node_ip: str) -> list[Certificate]:
    """Who proves itself to whom; the names are those that Kubernetes' bootstrap RBAC knows."""
    server_names = (
        "IP:127.0.0.1",
        f"IP:{API_SERVICE}",
        f"IP:{node_ip}",
        "DNS:localhost",
        "DNS:kubernetes",
        "DNS:kubernetes.default",
        "DNS:kubernetes.default.svc",
        "DNS:kubernetes.default.svc.cluster.local",
    )
    return [
        Certificate("apiserver", "kube-apiserver", alternative_names=server_names),
        Certificate("admin", "admin", "system:masters"),
        Certificate("kubelet", f"system:node:{NODE}", "system:nodes"),
        Certificate("kubelet-server", NODE, alternative_names=(f"IP:{node_ip}", f"DNS:{NODE}")),
        Certificate("controller-manager", "system:kube-controller-manager"),
        Certificate("scheduler", "system:kube-scheduler"),
        Certificate("proxy", "system:kube-proxy"),
    ]


def kubeconfig(user: str, pki: Path) -> str:
    """A kubeconfig for one of the certificates, as JSON (which is YAML)."""
    return to_yaml(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "wsgiapp",
                    "cluster": {"server": API_URL, "certificate-authority": str(pki / "ca.crt")},
                }
            ],
            "users": [
                {
                    "name": user,
                    "user": {
                        "client-certificate": str(pki / f"{user}.crt"),
                        "client-key": str(pki / f"{user}.key"),
                    },
                }
            ],
            "contexts": [{"name": "wsgiapp", "context": {"cluster": "wsgiapp", "user": user}}],
            "current-context": "wsgiapp",
        }
    )


def to_yaml(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"


def config_files(paths: Paths, node_ip: str) -> dict[Path, str]:
    """Every file the components read, but for keys and certificates."""
    config, pki = paths.state / "config", paths.state / "pki"
    users = ("kubelet", "controller-manager", "scheduler", "proxy")
    return {
        paths.kubeconfig: kubeconfig("admin", pki),
        **{config / f"{user}.kubeconfig": kubeconfig(user, pki) for user in users},
        config / "cni" / "10-wsgiapp.conflist": to_yaml(_network(paths)),
        config / "containerd.toml": _containerd(paths),
        config / "kubelet.yaml": to_yaml(_kubelet(paths, pki)),
        config / "audit-policy.yaml": to_yaml(_audit_policy()),
    }


def _audit_policy() -> dict[str, object]:
    """What the operator asks for, and nothing else: by it a test compares its roles with what it does."""
    asked = {
        "level": "Metadata",
        "users": [OPERATOR],
        "omitStages": ["RequestReceived", "ResponseStarted"],
    }
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "rules": [asked, {"level": "None"}],
    }


def _network(paths: Paths) -> dict[str, object]:
    # A routed pair of interfaces per pod, no bridge: what pods on one bridge send each other through a
    # Service passes kube-proxy's rules only where the kernel has br_netfilter. No ipMasq either: the
    # plug-in would write iptables chains for each pod, where one nftables table does.
    routed = {
        "type": "ptp",
        "ipam": {
            "type": "host-local",
            "dataDir": str(paths.state / "cni"),
            "ranges": [[{"subnet": POD_NETWORK}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    return {"cniVersion": "1.0.0", "name": "wsgiapp", "plugins": [routed]}


def nat_rules() -> str:
    """The node's own nftables table: pods reach the world under the node's address."""
    return (
        f"table {NAT_TABLE} {{\n"
        "  chain postrouting {\n"
        "    type nat hook postrouting priority srcnat;\n"
        f"    ip saddr {POD_NETWORK} ip daddr != {POD_NETWORK} masquerade\n"
        "  }\n"
        "}\n"
    )


def _containerd(paths: Paths) -> str:
    return f"""\
version = 3
root = "{paths.state}/containerd"
state = "{paths.run}/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri"]
[grpc]
  address = "{paths.containerd_socket}"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "{paths.state}/config/cni"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  Root = "{paths.run}/runc"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{PAUSE_IMAGE}"
"""


def _kubelet(paths: Paths, pki: Path) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki / "kubelet-server.crt"),
        "tlsPrivateKeyFile": str(pki / "kubelet-server.key"),
        "containerRuntimeEndpoint": f"unix://{paths.containerd_socket}",
        "podLogsDir": str(paths.state / "pod-logs"),
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": "cluster.local",
        "resolvConf": "/etc/resolv.conf",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "enforceNodeAllocatable": [],
        "makeIPTablesUtilChains": False,
        "serializeImagePulls": False,
        # Images come from no registry: collecting them would end the cluster.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi"},
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "5s",
        "maxPods": 250,
    }


def components(paths: Paths, node_ip: str) -> list[Component]:
    """The node's processes in the order of their start."""
    config, pki = paths.state / "config", paths.state / "pki"
    kube = str(paths.bin / "kube")
    authority = pki / "ca.crt"
    return [
        Component(
            "containerd",
            (str(paths.bin / "containerd"), f"--config={config}/containerd.toml"),
            (config / "containerd.toml",),
        ),
        Component(
            "etcd",
            (
                kube,
                "etcd",
                f"--data-dir={paths.state}/etcd",
                "--unsafe-no-fsync",  # objects are made anew at each start; speed matters
                "--listen-client-urls=http://127.0.0.1:2379",
                "--advertise-client-urls=http://127.0.0.1:2379",
                "--listen-peer-urls=http://127.0.0.1:2380",
                "--log-level=warn",
            ),
        ),
        Component(
            "kube-apiserver",
            (
                kube,
                "kube-apiserver",
                "--etcd-servers=http://127.0.0.1:2379",
                "--secure-port=6443",
                "--bind-address=0.0.0.0",
                f"--advertise-address={node_ip}",
                f"--tls-cert-file={pki}/apiserver.crt",
                f"--tls-private-key-file={pki}/apiserver.key",
                f"--client-ca-file={authority}",
                f"--service-account-key-file={pki}/service-account.pub",
                f"--service-account-signing-key-file={pki}/service-account.key",
                "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
                f"--service-cluster-ip-range={SERVICE_NETWORK}",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--allow-privileged=true",
                f"--audit-policy-file={config}/audit-policy.yaml",
                f"--audit-log-path={paths.audit_log}",
                "--audit-log-mode=batch",
                "--audit-log-maxsize=32",  # MB, and one file more of before
                "--audit-log-maxbackup=1",
                "--kubelet-preferred-address-types=InternalIP",
                f"--kubelet-client-certificate={pki}/admin.crt",
                f"--kubelet-client-key={pki}/admin.key",
                "--profiling=false",
            ),
            (pki / "apiserver.crt", authority, config / "audit-policy.yaml"),
        ),
        Component(
            "kube-controller-manager",
            (
                kube,
                "kube-controller-manager",
                f"--kubeconfig={config}/controller-manager.kubeconfig",
                f"--service-account-private-key-file={pki}/service-account.key",
                f"--root-ca-file={authority}",
                "--use-service-account-credentials",
                "--leader-elect=false",
                "--kube-api-qps=200",
                "--kube-api-burst=400",
            ),
            (authority,),
        ),
        Component(
            "kube-scheduler",
            (
                kube,
                "kube-scheduler",
                f"--kubeconfig={config}/scheduler.kubeconfig",
                "--leader-elect=false",
            ),
            (authority,),
        ),
        Component(
            "kubelet",
            (
                kube,
                "kubelet",
                f"--config={config}/kubelet.yaml",
                f"--kubeconfig={config}/kubelet.kubeconfig",
                f"--root-dir={paths.state}/kubelet",
                f"--node-ip={node_ip}",
                f"--hostname-override={NODE}",
            ),
            (config / "kubelet.yaml", authority),
        ),
        Component(
            "kube-proxy",
            (
                kube,
                "kube-proxy",
                f"--kubeconfig={config}/proxy.kubeconfig",
                f"--hostname-override={NODE}",
                "--proxy-mode=nftables",
                f"--cluster-cidr={POD_NETWORK}",
                "--conntrack-max-per-core=0",  # its sysctl is not ours to write
            ),
            (authority,),
        ),
    ]
