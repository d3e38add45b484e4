"""PodMonitors and ServiceMonitors as scrape configurations, by the rules that the Prometheus Operator documents; pure.

Of them as much as the chart uses: selectors, ports, relabelings, native histograms.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

Json = dict[str, Any]


def scrape_config(monitor: Json, kubeconfig: Path) -> Json:
    """Return the scrape configuration of a monitor with one endpoint, for a Prometheus outside the cluster."""
    spec, metadata = monitor["spec"], monitor["metadata"]
    of_pods = monitor["kind"] == "PodMonitor"
    [endpoint] = spec["podMetricsEndpoints" if of_pods else "endpoints"]
    chosen = spec.get("namespaceSelector", {})
    names = [] if chosen.get("any") else chosen.get("matchNames", [metadata["namespace"]])
    found = {"role": "pod" if of_pods else "endpointslice", "kubeconfig_file": str(kubeconfig)}
    port = "pod_container_port_name" if of_pods else "endpointslice_port_name"
    rules = [
        *_select(spec["selector"], "pod" if of_pods else "service"),
        _keep(port, endpoint["port"]),
        {**_source("pod_phase"), "action": "drop", "regex": "Failed|Succeeded"},
        *(_copy(*pair) for pair in (("namespace", "namespace"), ("pod_name", "pod"))),
        *(_relabeling(rule) for rule in endpoint.get("relabelings", ())),
    ]
    config = {
        "job_name": f"{monitor['kind']}/{metadata['namespace']}/{metadata['name']}",
        "kubernetes_sd_configs": [
            {**found, "namespaces": {"names": names}} if names else found,
        ],
        "metrics_path": endpoint["path"],
        "relabel_configs": rules,
    }
    if spec.get("convertClassicHistogramsToNHCB"):
        config["convert_classic_histograms_to_nhcb"] = True
    if spec.get("scrapeClassicHistograms"):
        config["always_scrape_classic_histograms"] = True
    return config


def _select(selector: Json, what: str) -> list[Json]:
    labels = selector.get("matchLabels", {}).items()
    rules = [_keep(f"{what}_label_{_plain(name)}", value) for name, value in labels]
    for expression in selector.get("matchExpressions", ()):
        assert expression["operator"] == "Exists", expression
        rules.append(_keep(f"{what}_labelpresent_{_plain(expression['key'])}", "true"))
    return rules


def _relabeling(rule: Json) -> Json:
    names = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    return {names[field]: value for field, value in rule.items()}


def _keep(label: str, value: str) -> Json:
    return {**_source(label), "action": "keep", "regex": re.escape(value)}


def _copy(label: str, target: str) -> Json:
    return {**_source(label), "target_label": target}


def _source(label: str) -> Json:
    return {"source_labels": [f"__meta_kubernetes_{label}"]}


def _plain(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]", "_", label)
