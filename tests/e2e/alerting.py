"""A Prometheus of the test's own with the shipped rules, in which time passes faster."""

from __future__ import annotations

import json
import os
import re
import urllib.parse
from typing import Any

import yaml

from charts.generate import RULES
from tests.support.kube import Kube

NAME, NAMESPACE = "prometheus-rules", "monitoring"
# What takes 20 minutes takes one: every window and every `for` of the rules, and Prometheus' own look back.
# 1 is the speed that users have.
FASTER = int(os.environ.get("RULES_FASTER", "20"))
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def scale_rules(text: str) -> str:
    """Return rules whose windows and `for` are FASTER times as short; pure."""

    def shorter(number: str, unit: str) -> str:
        return f"{int(number) * _UNITS_S[unit] * 1000 // FASTER}ms"

    text = re.sub(r"\[(\d+)([smhd])\]", lambda m: f"[{shorter(*m.groups())}]", text)
    return re.sub(r"\bfor: (\d+)([smhd])", lambda m: f"for: {shorter(*m.groups())}", text)


class RulesPrometheus:
    """Starts it beside the cluster's own, whose permissions and scrape configuration it takes."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    def start(self) -> None:
        config = self._kube.get("configmaps", "prometheus", namespace=NAMESPACE)
        scraping = yaml.safe_load(config["data"]["prometheus.yml"])
        scraping["global"] = {
            "scrape_interval": "1s",
            "scrape_timeout": "1s",
            "evaluation_interval": "1s",
        }
        scraping["rule_files"] = ["/etc/prometheus/rules.yml"]
        files = {
            "prometheus.yml": yaml.safe_dump(scraping),
            "rules.yml": scale_rules(RULES.read_text(encoding="utf-8")),
        }
        self._kube.apply(*_manifests(files), namespace=NAMESPACE)
        self._kube.kubectl(
            "wait", "-n", NAMESPACE, f"pod/{NAME}", "--for=condition=Ready", "--timeout=60s"
        )

    def stop(self) -> None:
        self._kube.kubectl(
            "delete", "-n", NAMESPACE, f"pod/{NAME}", f"configmap/{NAME}", "--grace-period=1"
        )

    def firing(self) -> list[dict[str, str]]:
        """Return the labels of every alert that fires."""
        return self.query('ALERTS{alertstate="firing"}')

    def query(self, promql: str) -> list[dict[str, str]]:
        """Return the labels of every series that an instant query finds."""
        query = urllib.parse.urlencode({"query": promql})
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{NAME}:9090/proxy/api/v1/query?{query}"
        answer = json.loads(self._kube.kubectl("get", "--raw", path))
        return [each["metric"] for each in answer["data"]["result"]]


def _manifests(files: dict[str, str]) -> list[dict[str, Any]]:
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME},
        "data": files,
    }
    restricted = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    container = {
        "name": "prometheus",
        "image": "wsgiapp/prometheus:1",
        "imagePullPolicy": "IfNotPresent",
        "args": [
            "--config.file=/etc/prometheus/prometheus.yml",
            "--storage.tsdb.path=/data",
            f"--query.lookback-delta={5 * 60 // FASTER}s",
        ],
        "ports": [{"containerPort": 9090}],
        "readinessProbe": {"httpGet": {"path": "/-/ready", "port": 9090}, "periodSeconds": 1},
        "securityContext": restricted,
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/prometheus", "readOnly": True},
            {"name": "data", "mountPath": "/data"},
        ],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": NAME},
        "spec": {
            "serviceAccountName": "prometheus",
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [
                {"name": "config", "configMap": {"name": NAME}},
                {"name": "data", "emptyDir": {}},
            ],
        },
    }
    return [config, pod]
