"""What helm makes of the chart: valid objects, least rights, and refusals that name the value."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from wsgiapp_operator.settings import read_settings

from charts.generate import CHART, CRD, DASHBOARDS, RBAC, ROOT, RULES, read_values
from tests.unit.chart.conftest import Objects, Refused

Render = Callable[..., Objects]
VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "everything": {
        "image": {"repository": "registry.example/operator", "tag": "9", "pullPolicy": "Always"},
        "prefork": {"image": {"repository": "registry.example/prefork", "tag": "8"}},
        "imagePullSecrets": [{"name": "registry"}],
        "replicaCount": 2,
        "logLevel": "debug",
        "logFormat": "text",
        "watchNamespaces": ["shop", "blog"],
        "serviceAccount": {"name": "op", "annotations": {"example.com/role": "op"}},
        "resources": {"limits": {"cpu": 1}},
        "podLabels": {"team": "web"},
        "podAnnotations": {"example.com/a": "b"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "priorityClassName": "system-cluster-critical",
        "global": {"anything": 1, "imagePullSecrets": [{"name": "global"}]},
        "upgrade": {"appsAtATime": 9},
        "apps": {"ingressAnnotations": ["nginx.org/proxy-*", "cert-manager.io/issuer"]},
        "secrets": {"read": False},
        "commonLabels": {"cost": "web"},
        "commonAnnotations": {"example.com/owner": "web"},
        "strategy": {"type": "Recreate"},
        "podDisruptionBudget": {"enabled": True, "maxUnavailable": "50%"},
        "networkPolicy": {"enabled": True, "from": [{"namespaceSelector": {}}]},
        "extraArgs": ["--log-level=warning"],
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"}],
        "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca"}],
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
        "hostAliases": [{"ip": "192.0.2.1", "hostnames": ["mirror.example"]}],
        "runtimeClassName": "gvisor",
        "metrics": {"service": {"port": 80, "annotations": {"a": "b"}}},
    },
}
BAD_VALUES = [
    ({"replica": 2}, "replica"),
    ({"replicaCount": -1}, "/replicaCount"),
    ({"replicaCount": "two"}, "/replicaCount"),
    ({"image": {"repository": ""}}, "/image/repository"),
    ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
    ({"prefork": {"tag": "1"}}, "/prefork"),
    ({"imagePullSecrets": ["registry"]}, "/imagePullSecrets/0"),
    ({"logLevel": "loud"}, "/logLevel"),
    ({"logFormat": "yaml"}, "/logFormat"),
    ({"watchNamespaces": ["Shop"]}, "/watchNamespaces/0"),
    ({"apps": {"ingressAnnotations": ["a,b"]}}, "/apps/ingressAnnotations/0"),
    ({"watchNamespaces": ["shop", "shop"]}, "/watchNamespaces"),
    ({"crds": {"enabled": "yes"}}, "/crds/enabled"),
    ({"crd": {"install": False}}, "crd"),
    ({"image": {"digest": "sha256:12"}}, "/image/digest"),
    ({"upgrade": {"appsAtATime": 0}}, "/upgrade/appsAtATime"),
    ({"secrets": {"read": "no"}}, "/secrets/read"),
    ({"prefork": {"delivery": "rsync"}}, "/prefork/delivery"),
    ({"strategy": {"type": "OnDelete"}}, "/strategy/type"),
    ({"global": {"imageRegistry": 1}}, "/global/imageRegistry"),
    ({"metrics": {"service": {"port": 0}}}, "/metrics/service/port"),
    ({"metrics": {"rules": {"errorBudget": 0}}}, "/metrics/rules/errorBudget"),
    ({"metrics": {"rules": {"errorBudget": 0.1}}}, "/metrics/rules/errorBudget"),
    ({"metrics": {"rules": {"enable": True}}}, "/metrics/rules"),
    (
        {"metrics": {"dashboards": {"labels": {"grafana_dashboard": 1}}}},
        "/metrics/dashboards/labels/grafana_dashboard",
    ),
    ({"extraEnv": [{"value": "1"}]}, "/extraEnv/0"),
    ({"podLabels": {"a": 1}}, "/podLabels/a"),
    ({"resources": {"limit": {}}}, "/resources"),
    ({"apps": {"podId": 0}}, "/apps/podId"),
    ({"apps": {"podId": "root"}}, "/apps/podId"),
]


def one(objects: Objects, kind: str) -> dict[str, Any]:
    (found,) = [each for each in objects if each["kind"] == kind]
    return found


def container(objects: Objects) -> dict[str, Any]:
    (found,) = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def test_a_cluster_that_assigns_ids_gets_none(render: Render) -> None:
    none = {"runAsUser": None, "runAsGroup": None}
    objects = render({"apps": {"podId": "cluster"}, "podSecurityContext": none})
    pod = one(objects, "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"].keys() == {"runAsNonRoot", "seccompProfile"}
    assert read_settings(container(objects)["args"], {}).pod_id is None


def test_lint_finds_nothing(helm: str) -> None:
    done = subprocess.run(
        [helm, "lint", "--strict", str(CHART)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)
def test_objects_are_valid_for_kubernetes(render: Render, values: dict[str, Any]) -> None:
    for each in render(values):
        for version in ("1.34", "1.35", "1.36", "1.37"):
            kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)
def test_helm_3_renders_the_same(render: Render, helm3: str, values: dict[str, Any]) -> None:
    def in_order(objects: Objects) -> Objects:
        return sorted(objects, key=lambda each: (each["kind"], json.dumps(each["metadata"])))

    assert in_order(render(values, program=helm3)) == in_order(render(values))


@pytest.mark.parametrize(("values", "place"), BAD_VALUES, ids=lambda part: json.dumps(part))
def test_bad_value_is_refused_with_its_place(
    render: Render, values: dict[str, Any], place: str
) -> None:
    with pytest.raises(Refused) as refused:
        render(values)
    assert place in str(refused.value)


def test_operator_pod_is_restricted_with_a_read_only_root(render: Render) -> None:
    pod = one(render(), "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {next(iter(each.keys() - {"name"})) for each in pod["volumes"]} == {"emptyDir"}


def test_roles_are_the_operators_own_and_have_no_more_than_they_name(render: Render) -> None:
    objects = render({"rbac": {"aggregateClusterRoles": False}})
    sources = {each["kind"]: each["rules"] for each in yaml.safe_load_all(RBAC.read_text())}
    assert {kind: one(objects, kind)["rules"] for kind in sources} == sources
    rules = [rule for rules in sources.values() for rule in rules]
    for rule in rules:
        assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"]
    resources = {resource: set(rule["verbs"]) for rule in rules for resource in rule["resources"]}
    assert resources["secrets"] == {"get", "create"}, "not to be listed, nor watched, nor changed"
    assert not resources["pods"] & {"create", "delete", "deletecollection"}
    assert not {"pods/exec", "pods/proxy", "serviceaccounts/token"} & resources.keys()


def test_operator_without_permission_on_secrets_is_told_so(render: Render) -> None:
    objects = render({"secrets": {"read": False}})
    rules = [rule for each in objects if each["kind"].endswith("Role") for rule in each["rules"]]
    assert not [rule for rule in rules if "secrets" in rule["resources"]]
    assert read_settings(container(objects)["args"], {}).reads_secrets is False
    assert read_settings(container(render())["args"], {}).reads_secrets is True


def test_rights_are_given_in_the_watched_namespaces_only(render: Render) -> None:
    objects = render({"watchNamespaces": ["shop", "blog"]})
    assert not [each for each in objects if each["kind"] == "ClusterRoleBinding"]
    bound = {
        each["metadata"]["namespace"]: each["roleRef"]["kind"]
        for each in objects
        if each["kind"] == "RoleBinding"
    }
    assert bound == {"shop": "ClusterRole", "blog": "ClusterRole", "kube-system": "Role"}
    assert "--namespaces=shop,blog" in container(objects)["args"]


def test_bindings_name_the_account_of_the_pod(render: Render) -> None:
    for values in VARIANTS.values():
        objects = render(values, release="other")
        account = one(objects, "ServiceAccount")["metadata"]["name"]
        pod = one(objects, "Deployment")["spec"]["template"]["spec"]
        assert pod["serviceAccountName"] == account
        bindings = [each for each in objects if each["kind"].endswith("RoleBinding")]
        roles = {(e["kind"], e["metadata"]["name"]) for e in objects if e["kind"].endswith("Role")}
        assert bindings
        for each in bindings:
            assert [subject["name"] for subject in each["subjects"]] == [account]
            assert (each["roleRef"]["kind"], each["roleRef"]["name"]) in roles


def test_two_releases_share_no_name_but_the_crds(render: Render) -> None:
    def names(release: str) -> set[tuple[str, str]]:
        objects = render({"crds": {"enabled": False}}, release=release)
        return {(each["kind"], each["metadata"]["name"]) for each in objects}

    assert not names("blue") & names("green")


def test_crd_is_the_source_and_stays_on_uninstall(render: Render) -> None:
    found = one(render(), "CustomResourceDefinition")
    assert found["spec"] == yaml.safe_load(CRD.read_text())["spec"]
    assert found["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_crd_can_be_left_out(render: Render) -> None:
    kinds = {each["kind"] for each in render({"crds": {"enabled": False}})}
    assert "CustomResourceDefinition" not in kinds
    assert "Deployment" in kinds


def test_crd_goes_with_the_release_only_on_request(render: Render) -> None:
    found = one(render({"crds": {"keep": False}}), "CustomResourceDefinition")
    assert "annotations" not in found["metadata"]


def test_digest_wins_over_the_tag_and_a_registry_goes_before_every_image(render: Render) -> None:
    digest = f"sha256:{'0123456789abcdef' * 4}"
    objects = render(
        {
            "global": {"imageRegistry": "mirror.example/dockerhub/"},
            "image": {"tag": "9", "digest": digest},
            "prefork": {"image": {"tag": "8"}},
        }
    )
    assert container(objects)["image"] == f"mirror.example/dockerhub/wsgiapp/operator@{digest}"
    settings = read_settings(container(objects)["args"], {})
    assert settings.prefork_image == "mirror.example/dockerhub/wsgiapp/prefork:8"


def test_labels_and_annotations_for_all_objects_reach_all_but_test_and_selector(
    render: Render,
) -> None:
    objects = render(VARIANTS["everything"])
    for each in objects:
        if "helm.sh/hook" in each["metadata"].get("annotations", {}):
            continue
        assert each["metadata"]["labels"]["cost"] == "web", each["kind"]
        assert each["metadata"]["annotations"]["example.com/owner"] == "web", each["kind"]
    deployment = one(objects, "Deployment")["spec"]
    assert (
        deployment["template"]["metadata"]["labels"].items()
        >= {"cost": "web", "team": "web"}.items()
    )
    assert "cost" not in deployment["selector"]["matchLabels"]


def test_names_and_namespace_can_be_given(render: Render) -> None:
    def names(values: dict[str, Any]) -> set[str]:
        return {
            each["metadata"]["name"]
            for each in render(values)
            if each["kind"] != "CustomResourceDefinition"
        }

    ends = {"", "-view", "-edit", "-lease", "-metrics", "-test"}
    assert names({"fullnameOverride": "wsgi"}) == {f"wsgi{end}" for end in ends}
    assert names({"nameOverride": "kept"}) == {f"wsgiapp-operator-kept{end}" for end in ends}
    objects = render({"namespaceOverride": "elsewhere", "leaderElection": {"namespace": ""}})
    assert {e["metadata"].get("namespace", "elsewhere") for e in objects} == {"elsewhere"}
    subjects = [s for e in objects for s in e.get("subjects", [])]
    assert {subject["namespace"] for subject in subjects} == {"elsewhere"}


def test_account_and_rights_can_come_from_elsewhere(render: Render) -> None:
    values = {"serviceAccount": {"create": False, "name": "given"}, "rbac": {"create": False}}
    objects = render(values)
    kinds = {each["kind"] for each in objects}
    assert not kinds & {
        "ServiceAccount",
        "ClusterRole",
        "Role",
        "ClusterRoleBinding",
        "RoleBinding",
    }
    assert one(objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == "given"
    objects = render({"serviceAccount": {"create": False}})
    assert one(objects, "ClusterRoleBinding")["subjects"][0]["name"] == "default"


def test_service_budget_and_policy_select_the_operators_pods(render: Render) -> None:
    objects = render(VARIANTS["everything"])
    labels = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        one(objects, "Service")["spec"]["selector"],
        one(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels.items()
    test = next(e for e in objects if e["kind"] == "Pod")
    assert not selectors[0].items() <= test["metadata"]["labels"].items()


def test_helm_test_goes_where_the_operator_goes_and_may_ask_it(render: Render) -> None:
    objects = render(VARIANTS["everything"])
    test, operator = one(objects, "Pod"), one(objects, "Deployment")["spec"]["template"]
    for field in ("nodeSelector", "tolerations", "imagePullSecrets"):
        assert test["spec"][field] == operator["spec"][field]
    (rule,) = one(objects, "NetworkPolicy")["spec"]["ingress"]
    *given, admitted = rule["from"]
    assert given == [{"namespaceSelector": {}}]
    assert admitted["podSelector"]["matchLabels"].items() <= test["metadata"]["labels"].items()
    everyone = one(render({"networkPolicy": {"enabled": True}}), "NetworkPolicy")
    assert "from" not in everyone["spec"]["ingress"][0]


def test_every_value_is_used_by_a_template() -> None:
    text = "".join(path.read_text() for path in sorted((CHART / "templates").rglob("*.*")))
    for path, *_ in read_values((CHART / "values.yaml").read_text()):
        names = [".".join(path[: end + 1]) for end in range(len(path))]
        assert any(re.search(rf"\.Values\.{name}\b", text) for name in names), path


def test_images_default_to_the_charts_version_and_can_be_set(render: Render) -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    default, chosen = container(render()), container(render(VARIANTS["everything"]))
    assert default["image"] == f"wsgiapp/operator:{version}"
    assert f"--prefork-image=wsgiapp/prefork:{version}" in default["args"]
    assert chosen["image"] == "registry.example/operator:9"
    assert "--prefork-image=registry.example/prefork:8" in chosen["args"]


def test_operator_understands_the_arguments_it_is_given(render: Render) -> None:
    settings = read_settings(container(render(VARIANTS["everything"]))["args"], {})
    assert settings.namespaces == ("shop", "blog")
    assert settings.prefork_image == "registry.example/prefork:8"
    assert settings.upgrades_at_a_time == 9
    assert settings.ingress_annotations == ("nginx.org/proxy-*", "cert-manager.io/issuer")
    assert settings.log_level == "warning", "extraArgs come last and win"
    assert read_settings(container(render())["args"], {}).namespaces == ()


def test_pull_secrets_of_the_server_s_image_reach_the_operator(render: Render) -> None:
    objects = render({"prefork": {"imagePullSecrets": ["mirror", "other"]}})
    settings = read_settings(container(objects)["args"], {})
    assert settings.prefork_pull_secrets == ("mirror", "other")


def test_roles_of_the_cluster_may_read_and_write_wsgiapps_unless_switched_off(
    render: Render,
) -> None:
    def aggregated(objects: Objects) -> dict[str, list[str]]:
        return {
            name.rpartition("-")[2]: sorted(
                {verb for rule in each["rules"] for verb in rule["verbs"]}
            )
            for each in objects
            if each["kind"] == "ClusterRole"
            and (name := each["metadata"]["name"]).endswith(("-view", "-edit"))
        }

    assert aggregated(render()) == {
        "view": ["get", "list", "watch"],
        "edit": ["create", "delete", "deletecollection", "patch", "update"],
    }
    assert aggregated(render({"rbac": {"aggregateClusterRoles": False}})) == {}


def test_probes_and_scrapes_go_to_the_port_the_operator_listens_on(render: Render) -> None:
    objects = render()
    settings = read_settings(container(objects)["args"], {})
    port = int(settings.listen.rpartition(":")[2])
    assert [each["containerPort"] for each in container(objects)["ports"]] == [port]
    probes = {
        each["httpGet"]["path"]: each["httpGet"]["port"]
        for each in (container(objects)["livenessProbe"], container(objects)["readinessProbe"])
    }
    assert probes == {"/healthz": "http", "/readyz": "http"}
    template = one(objects, "Deployment")["spec"]["template"]
    assert template["metadata"]["annotations"]["prometheus.io/port"] == str(port)


def test_leases_are_the_pods_own_where_every_installation_looks(render: Render) -> None:
    objects = render({}, release="blue")
    fields = {
        each["name"]: each["valueFrom"]["fieldRef"]["fieldPath"]
        for each in container(objects)["env"]
    }
    assert fields == {"POD_NAME": "metadata.name"}
    settings = read_settings(container(objects)["args"], {"POD_NAME": "blue-1"})
    assert settings.identity == "blue-1"
    assert settings.installation == "wsgiapp-system/blue"
    assert settings.lease_namespace == "kube-system"
    for kind in ("Role", "RoleBinding"):
        assert one(objects, kind)["metadata"]["namespace"] == "kube-system"


def test_default_resources_can_be_replaced_by_cpu_as_a_number(render: Render) -> None:
    limits = container(render({"resources": {"limits": {"cpu": 1}}}))["resources"]["limits"]
    assert limits["cpu"] == 1


def test_pod_monitors_pass_the_schema_of_the_prometheus_operator(
    render: Render, monitoring_schemas: dict[str, Any], helm3: str
) -> None:
    """And the rules do."""
    assert [e for e in render() if e["kind"] == "PodMonitor"] == []
    further = {"interval": "15s", "labels": {"release": "prometheus"}, "nativeHistograms": True}
    for chosen in ({}, further):
        values = {
            "metrics": {"podMonitor": {"enabled": True, **chosen}, "rules": {"enabled": True}}
        }
        objects = [e for e in render(values) if e["apiVersion"] == "monitoring.coreos.com/v1"]
        assert [e["kind"] for e in objects].count("PodMonitor") == 2
        for each in objects:
            jsonschema.validate(each, monitoring_schemas[each["kind"]])
        assert [e for e in render(values, program=helm3) if e in objects] == objects


def test_service_monitors_pass_the_schema_of_the_prometheus_operator(
    render: Render, monitoring_schemas: dict[str, Any]
) -> None:
    further = {"interval": "15s", "labels": {"release": "prometheus"}, "nativeHistograms": True}
    for chosen in ({}, further):
        objects = render({"metrics": {"serviceMonitor": {"enabled": True, **chosen}}})
        monitors = [each for each in objects if each["kind"] == "ServiceMonitor"]
        assert len(monitors) == 2
        for each in monitors:
            jsonschema.validate(each, monitoring_schemas["ServiceMonitor"])
            assert ("convertClassicHistogramsToNHCB" in each["spec"]) == bool(chosen)


def test_service_monitors_find_services_and_ports_that_there_are(render: Render) -> None:
    values = {"metrics": {"serviceMonitor": {"enabled": True}}, "watchNamespaces": ["shop", "blog"]}
    objects = render(values)
    apps, own = [e["spec"] for e in objects if e["kind"] == "ServiceMonitor"]
    services = [each for each in objects if each["kind"] == "Service"]

    def selected(monitor: dict[str, Any]) -> list[dict[str, Any]]:
        wanted, [endpoint] = monitor["selector"]["matchLabels"], monitor["endpoints"]
        return [
            each
            for each in services
            if wanted.items() <= each["metadata"]["labels"].items()
            and endpoint["port"] in [port["name"] for port in each["spec"]["ports"]]
        ]

    assert [each["metadata"]["namespace"] for each in selected(apps)] == ["shop", "blog"]
    assert apps["namespaceSelector"] == {"matchNames": ["shop", "blog"]}
    assert [each["metadata"]["name"] for each in selected(own)] == ["wsgiapp-operator-metrics"]
    # The pods of apps have these labels; the operator's own have Helm's.
    golden = (ROOT / "tests" / "golden" / "wsgiapps" / "every-field.expected.yaml").read_text()
    [deployment] = [e for e in yaml.safe_load_all(golden) if e["kind"] == "Deployment"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert selected(apps)[0]["spec"]["selector"].items() <= labels.items()


def test_monitors_that_would_count_twice_or_find_nothing_are_refused(render: Render) -> None:
    both = {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}
    with pytest.raises(Refused, match="counted twice; choose one"):
        render({"metrics": both})
    with pytest.raises(Refused, match=r"needs metrics\.service\.enabled"):
        render({"metrics": {"serviceMonitor": {"enabled": True}, "service": {"enabled": False}}})


def test_a_typo_in_a_pod_monitor_would_be_found(monitoring_schemas: dict[str, Any]) -> None:
    monitor = {"spec": {"selector": {}, "podMetricsEndpoint": []}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(monitor, monitoring_schemas["PodMonitor"])


def test_pod_monitors_find_the_ports_that_there_are(render: Render) -> None:
    values = {"metrics": {"podMonitor": {"enabled": True}}, "watchNamespaces": ["shop", "blog"]}
    objects = render(values)
    apps, own = [e["spec"] for e in objects if e["kind"] == "PodMonitor"]
    assert apps["namespaceSelector"] == {"matchNames": ["shop", "blog"]}
    pod = one(objects, "Deployment")["spec"]["template"]
    assert own["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert own["podMetricsEndpoints"][0]["port"] in {
        port["name"] for port in pod["spec"]["containers"][0]["ports"]
    }
    [port] = {each["port"] for each in apps["podMetricsEndpoints"]}
    app_pod = (ROOT / "tests" / "golden" / "wsgiapps" / "every-field.expected.yaml").read_text()
    assert f"name: {port}\n" in app_pod


def test_rules_are_those_of_the_source_once_switched_on(render: Render) -> None:
    assert [e for e in render() if e["kind"] == "PrometheusRule"] == []
    rule = one(render({"metrics": {"rules": {"enabled": True}}}), "PrometheusRule")
    assert rule["spec"] == yaml.safe_load(RULES.read_text())
    assert rule["metadata"]["labels"]["app.kubernetes.io/name"] == "wsgiapp-operator"


def test_rules_take_labels_budget_and_the_place_of_the_pages(render: Render, helm3: str) -> None:
    chosen = {
        "enabled": True,
        "labels": {"release": "prometheus"},
        "runbookUrl": "https://runbooks.example/wsgi/",
        "errorBudget": 0.0005,
    }
    values = {"metrics": {"rules": chosen}, "commonLabels": {"release": "other"}}
    rule = one(render(values), "PrometheusRule")
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    rules = [each for group in rule["spec"]["groups"] for each in group["rules"]]
    assert rules[0] == {"record": "wsgi:error_budget:ratio", "expr": "vector(0.0005)"}
    for alert in (each for each in rules if "alert" in each):
        page = f"https://runbooks.example/wsgi/{alert['alert']}.md"
        assert alert["annotations"]["runbook_url"] == page
    assert one(render(values, program=helm3), "PrometheusRule") == rule


def test_dashboards_are_those_of_the_source_once_switched_on(render: Render, helm3: str) -> None:
    assert [e for e in render() if e["kind"] == "ConfigMap"] == []
    chosen = {"enabled": True, "annotations": {"grafana_folder": "Apps"}}
    values = {"metrics": {"dashboards": chosen}}
    objects = render(values)
    shown = {}
    for each in (each for each in objects if each["kind"] == "ConfigMap"):
        assert each["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert each["metadata"]["annotations"] == {"grafana_folder": "Apps"}
        shown |= {each["metadata"]["name"]: each["data"]}
    assert shown == {
        f"wsgiapp-operator-dashboard-{path.stem.removeprefix('wsgiapp-')}": {
            path.name: path.read_text(encoding="utf-8")
        }
        for path in DASHBOARDS.glob("*.json")
    }
    assert len(shown) == 3
    assert render(values, program=helm3) == objects
