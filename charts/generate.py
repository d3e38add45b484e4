"""Writes everything in the chart and in manifests/ that has its source elsewhere.

values.yaml           → values.schema.json, the table of values in the chart's README.md
manifests/crd/*.yaml  → templates/crd.yaml, and the copy in the package `wsgiapp`
operator/controller/rbac.yaml → templates/rbac.yaml
monitoring/rules.yaml → templates/prometheusrule.yaml
monitoring/dashboards/*.json → dashboards/, which templates/dashboards.yaml reads
the rendered chart    → manifests/install.yaml (needs helm)

`python charts/generate.py [--helm PATH]` writes them; tests/unit/chart fails on a stale copy.
The functions are pure, text to text; only `main` reads and writes files and runs helm.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "charts" / "wsgiapp-operator"
CRD = ROOT / "manifests" / "crd" / "wsgiapps.yaml"
# A file and no link: an image or a wheel holds the package alone.
PACKAGED_CRD = ROOT / "operator" / "api" / "src" / "wsgiapp" / "crd.yaml"
RBAC = ROOT / "operator" / "controller" / "rbac.yaml"
RULES = ROOT / "monitoring" / "rules.yaml"
DASHBOARDS = ROOT / "monitoring" / "dashboards"
INSTALL = ROOT / "manifests" / "install.yaml"
NAMESPACE = "wsgiapp-system"
TABLE_START, TABLE_END = "<!-- values: generated from values.yaml -->", "<!-- /values -->"
# What the chart's values set in the rules.
SETTABLE_RULES = {
    r"vector\(0\.001\)": "vector({{ .Values.metrics.rules.errorBudget }})",
    r"runbook_url: docs/runbooks/(\w+\.md)": (
        r'runbook_url: {{ printf "%s/\1" $runbooks | quote }}'
    ),
}
# What only helm needs to find its objects again; noise, or even wrong, in a plain manifest.
HELM_ONLY = {"helm.sh/chart", "helm.sh/resource-policy"}


# --- values.yaml: keys, defaults, comments --------------------------------------------------------


def read_values(text: str) -> Iterator[tuple[tuple[str, ...], yaml.Node, str, dict[str, Any]]]:
    """Yield (path, node, description, schema keywords) of every key of a values file, in order.

    The description is the comment right above the key; its lines that start with `# @` are JSON
    Schema keywords in YAML. A key without a comment has the description "". A key whose keywords
    say what it may hold (see `_is_one_value`) is one value: nothing in it is yielded.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is None:
        return
    lines = text.splitlines()

    def walk(node: yaml.Node, path: tuple[str, ...]) -> Iterator[Any]:
        if not isinstance(node, yaml.MappingNode):
            return
        for key, value in node.value:
            description, keywords = _comment_above(lines, key.start_mark.line)
            yield (*path, key.value), value, description, keywords
            if not _is_one_value(keywords):
                yield from walk(value, (*path, key.value))

    yield from walk(root, ())


def _is_one_value(keywords: dict[str, Any]) -> bool:
    """Whether the keywords say what an object may hold; `additionalProperties: true` only opens it."""
    return "properties" in keywords or keywords.get("additionalProperties", True) is not True


def _comment_above(lines: list[str], row: int) -> tuple[str, dict[str, Any]]:
    block: list[str] = []
    while row > 0 and lines[row - 1].lstrip().startswith("#"):
        row -= 1
        block.insert(0, lines[row].lstrip()[1:].strip())
    words = [line for line in block if not line.startswith("@")]
    keywords: dict[str, Any] = {}
    for line in block:
        if line.startswith("@"):
            keywords |= yaml.safe_load(line[1:])
    return " ".join(words), keywords


def _default(node: yaml.Node) -> Any:
    return yaml.SafeLoader("").construct_document(node)


def build_schema(text: str) -> str:
    """Return values.schema.json: types from the defaults, bounds from the `# @` keywords.

    Unknown keys are refused wherever values.yaml lists keys, so a typo does not pass in silence.
    """
    root: dict[str, Any] = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart wsgiapp-operator",
        "type": "object",
        "additionalProperties": False,
        "properties": {},
    }
    for path, node, description, keywords in read_values(text):
        parent = root
        for key in path[:-1]:
            parent = parent["properties"][key]
        own: dict[str, Any] = {"type": _json_type(node)}
        if description:
            own["description"] = description
        if isinstance(node, yaml.MappingNode) and node.value and not _is_one_value(keywords):
            own |= {"additionalProperties": False, "properties": {}}
        parent["properties"][path[-1]] = own | keywords
    return json.dumps(root, indent=2, ensure_ascii=False) + "\n"


def _json_type(node: yaml.Node) -> str:
    kinds = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
    if isinstance(node, yaml.MappingNode):
        return "object"
    if isinstance(node, yaml.SequenceNode):
        return "array"
    return kinds[node.tag.rsplit(":", 1)[1]]


def build_readme(readme: str, values: str) -> str:
    """Return the README with its table of values renewed; the prose around it stays."""
    rows = ["| Value | Type | Default | Meaning |", "|---|---|---|---|"]
    keys = list(read_values(values))
    parents = {path[:-1] for path, *_ in keys}
    for path, node, description, keywords in keys:
        if path in parents:
            continue
        default = json.dumps(_default(node), ensure_ascii=False)
        meaning = description.replace("|", "\\|")
        if "enum" in keywords:
            meaning += " One of " + ", ".join(f"`{value}`" for value in keywords["enum"]) + "."
        rows.append(f"| `{'.'.join(path)}` | {_json_type(node)} | `{default}` | {meaning} |")
    head, _, rest = readme.partition(TABLE_START)
    _, _, tail = rest.partition(TABLE_END)
    return "\n".join([head + TABLE_START, "", *rows, "", TABLE_END]) + tail


# --- copies as templates --------------------------------------------------------------------------


def _escape(text: str) -> str:
    """Return text that a Go template prints unchanged."""
    return re.sub(r"(\{\{|\}\})", r'{{ "\1" }}', text)


def build_crd_template(crd: str) -> str:
    """Return the CRD as a template that can be left out and that `helm uninstall` keeps."""
    document = yaml.safe_load(crd)
    if more := document["metadata"].keys() - {"name"}:
        raise SystemExit(f"{CRD.name} has metadata {sorted(more)}; the chart sets its own")
    metadata = (
        "metadata:\n"
        '  labels:\n    {{- include "wsgiapp-operator.labels" . | nindent 4 }}\n'
        '  {{- $keep := ternary (dict "helm.sh/resource-policy" "keep") dict .Values.crds.keep }}\n'
        '  {{- include "wsgiapp-operator.annotations" (list . $keep) | nindent 2 }}\n'
    )
    body = _escape(dump(document)).replace("metadata:\n", metadata, 1)
    return (
        "{{/* Generated from manifests/crd/wsgiapps.yaml by charts/generate.py. */}}\n"
        "{{- if .Values.crds.enabled }}\n" + body + "{{- end }}\n"
    )


def build_rbac_template(rbac: str) -> str:
    """Return the operator's roles as a template, comments kept, under the release's names.

    Rules between `# only with VALUE` and `# end` are there where that value is true.
    """
    conditional = re.sub(
        r"^  # only with (\S+)\n(.*?)^  # end\n",
        r"  {{- if .Values.\1 }}\n\2  {{- end }}\n",
        _escape(rbac),
        flags=re.MULTILINE | re.DOTALL,
    )
    named = re.sub(
        r"^  name: wsgiapp-operator$",
        '  name: {{ include "wsgiapp-operator.fullname" . }}\n'
        "%s"
        '  labels:\n    {{- include "wsgiapp-operator.labels" . | nindent 4 }}\n'
        '  {{- include "wsgiapp-operator.annotations" (list .) | nindent 2 }}',
        conditional,
        flags=re.MULTILINE,
    )
    named = named.replace(
        "resourceNames: [wsgiapp-operator]",
        'resourceNames: [{{ include "wsgiapp-operator.fullname" . }}]',
    )
    documents = named.split("---\n")
    for index, document in enumerate(documents):
        local = (
            '  namespace: {{ include "wsgiapp-operator.leaseNamespace" . }}\n'
            if "kind: Role\n" in document
            else ""
        )
        documents[index] = document % local
    return (
        "{{/* Generated from operator/controller/rbac.yaml by charts/generate.py. */}}\n"
        "{{- if .Values.rbac.create }}\n" + "---\n".join(documents) + "{{- end }}\n"
    )


def build_rules_template(rules: str) -> str:
    """Return the Prometheus rules as a PrometheusRule that is off by default, comments kept.

    Two things are the values': the error budget, and where the runbook pages are.
    """
    _, _, groups = rules.partition("groups:\n")
    body = _escape("groups:\n" + groups)
    for fixed, value in SETTABLE_RULES.items():
        body, count = re.subn(fixed, value, body)
        if not count:
            raise SystemExit(f"{RULES.name} has nothing like {fixed}; the chart's values set it")
    return (
        "{{/* Generated from monitoring/rules.yaml by charts/generate.py. */}}\n"
        "{{- if .Values.metrics.rules.enabled }}\n"
        '{{- $runbooks := .Values.metrics.rules.runbookUrl | trimSuffix "/" }}\n'
        '{{- $labels := include "wsgiapp-operator.labels" . | fromYaml }}\n'
        "apiVersion: monitoring.coreos.com/v1\n"
        "kind: PrometheusRule\n"
        "metadata:\n"
        '  name: {{ include "wsgiapp-operator.fullname" . }}\n'
        '  namespace: {{ include "wsgiapp-operator.namespace" . }}\n'
        "  labels:\n"
        "    {{- toYaml (merge dict .Values.metrics.rules.labels $labels) | nindent 4 }}\n"
        '  {{- include "wsgiapp-operator.annotations" (list .) | nindent 2 }}\n'
        "spec:\n" + textwrap.indent(body, "  ") + "{{- end }}\n"
    )


# --- plain install --------------------------------------------------------------------------------


def build_install(rendered: str) -> str:
    """Return what `helm template` rendered as a manifest for `kubectl apply`, without traces of helm."""
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": NAMESPACE,
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
        },
    }
    documents = [each for each in yaml.safe_load_all(rendered) if each and not _is_hook(each)]
    # The CRD first: the operator exits when it starts before its API is there.
    documents.sort(key=lambda document: document["kind"] != "CustomResourceDefinition")
    head = (
        "# The operator with default values, for `kubectl apply --server-side -f install.yaml`.\n"
        "# Generated from the chart by charts/generate.py.\n"
    )
    return head + "---\n".join(dump(_without_helm(each)) for each in [namespace, *documents])


def _is_hook(document: Mapping[str, Any]) -> bool:
    """Whether only helm runs it, such as the pod of `helm test`."""
    return "helm.sh/hook" in document["metadata"].get("annotations", {})


def _without_helm(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = {
            key: _without_helm(inner)
            for key, inner in value.items()
            if key not in HELM_ONLY and (key, inner) != ("app.kubernetes.io/managed-by", "Helm")
        }
        return {key: inner for key, inner in kept.items() if inner != {} or value[key] == {}}
    if isinstance(value, list):
        return [_without_helm(inner) for inner in value]
    return value


# --- YAML -----------------------------------------------------------------------------------------


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, list items indented under their key, no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def dump(document: Any) -> str:
    """Return one YAML document in the style of this tree, keys in their given order."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)


# --- files ----------------------------------------------------------------------------------------


def generated(*, helm: str | None) -> dict[Path, str]:
    """Return path → text of every generated file; install.yaml only where there is a helm."""
    values = (CHART / "values.yaml").read_text(encoding="utf-8")
    readme = (CHART / "README.md").read_text(encoding="utf-8")
    crd = CRD.read_text(encoding="utf-8")
    files = {
        PACKAGED_CRD: f"# Copy of manifests/crd/{CRD.name}, made by charts/generate.py.\n{crd}",
        CHART / "values.schema.json": build_schema(values),
        CHART / "README.md": build_readme(readme, values),
        CHART / "templates" / "crd.yaml": build_crd_template(crd),
        CHART / "templates" / "rbac.yaml": build_rbac_template(RBAC.read_text(encoding="utf-8")),
        CHART / "templates" / "prometheusrule.yaml": build_rules_template(
            RULES.read_text(encoding="utf-8")
        ),
    }
    for board in sorted(DASHBOARDS.glob("*.json")):
        files[CHART / "dashboards" / board.name] = board.read_text(encoding="utf-8")
    if helm:
        files[INSTALL] = build_install(render_chart(helm))
    return files


def render_chart(helm: str, *arguments: str) -> str:
    """Return what `helm template` prints for the chart; raises CalledProcessError when refused."""
    command = [helm, "template", "wsgiapp-operator", str(CHART), "--namespace", NAMESPACE]
    return subprocess.run([*command, *arguments], check=True, capture_output=True, text=True).stdout


def find_helm() -> str | None:
    """Return the helm of the local cluster's cache, or the one on PATH, or None."""
    cache = os.environ.get("WSGIAPP_CACHE") or Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "wsgiapp"
    )
    cached = Path(cache, "bin", "helm")
    return str(cached) if cached.exists() else shutil.which("helm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--helm", help="the helm binary (default: the local cluster's, or PATH)")
    helm = parser.parse_args().helm or find_helm()
    # Twice: install.yaml is rendered from templates that the first round has just written.
    for chosen in (None, helm):
        for path, text in generated(helm=chosen).items():
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                path.write_text(text, encoding="utf-8")
                sys.stdout.write(f"wrote {path.relative_to(ROOT)}\n")
    if helm is None:
        sys.exit("manifests/install.yaml was left as it is: no helm (`make cluster` fetches one)")


if __name__ == "__main__":
    main()
