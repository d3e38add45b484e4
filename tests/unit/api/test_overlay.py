"""podTemplate is laid over the operator's own template, which it cannot break."""

from typing import Any

import pytest
from wsgiapp.overlay import find_faults, lay_over
from wsgiapp.schema import Invalid

from tests.unit.operator.samples import make_app


@pytest.mark.parametrize(
    ("base", "overlay", "merged"),
    [
        ({"a": 1, "b": 2}, {"b": 3}, {"a": 1, "b": 3}),
        ({"a": {"b": 1}}, {"a": {"c": 2}}, {"a": {"b": 1, "c": 2}}),
        ({"args": ["a"]}, {"args": ["b"]}, {"args": ["b"]}),
        (
            {"containers": [{"name": "app", "image": "x"}]},
            {"containers": [{"name": "proxy"}, {"name": "app", "tty": True}]},
            {"containers": [{"name": "app", "image": "x", "tty": True}, {"name": "proxy"}]},
        ),
        (
            {"env": [{"name": "A", "value": "1"}]},
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {}}}]},
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {}}}]},
        ),
        (
            {"volumes": [{"name": "tmp", "emptyDir": {}}]},
            {"volumes": [{"name": "tmp", "ephemeral": {}}]},
            {"volumes": [{"name": "tmp", "ephemeral": {}}]},
        ),
        (
            {"volumeMounts": [{"name": "a", "mountPath": "/a"}]},
            {"volumeMounts": [{"name": "a", "mountPath": "/b"}]},
            {"volumeMounts": [{"name": "a", "mountPath": "/a"}, {"name": "a", "mountPath": "/b"}]},
        ),
        (
            {"ports": [{"containerPort": 8000, "protocol": "TCP"}]},
            {"ports": [{"containerPort": 443, "protocol": "UDP"}, {"containerPort": 443}]},
            {
                "ports": [
                    {"containerPort": 8000, "protocol": "TCP"},
                    {"containerPort": 443, "protocol": "UDP"},
                    {"containerPort": 443},
                ]
            },
        ),
        ({"tolerations": [{"key": "a"}]}, {"tolerations": []}, {"tolerations": []}),
        ({}, {"nodeSelector": {"a": "b"}}, {"nodeSelector": {"a": "b"}}),
    ],
)
def test_overlay_is_merged_as_kubectl_patch_does_it(base: Any, overlay: Any, merged: Any) -> None:
    before = repr(base)
    assert lay_over(base, overlay) == merged
    assert repr(base) == before


def app_container(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "app", **fields}]}}


@pytest.mark.parametrize(
    ("template", "field", "remedy"),
    [
        ({"metadata": {"labels": {"wsgi.dev/app": "x"}}}, "metadata.labels", "remove it"),
        ({"metadata": {"annotations": {"wsgi.dev/x": "y"}}}, "metadata.annotations", "remove it"),
        ({"spec": {"volumes": [{"name": "run"}]}}, "spec.volumes", "another name"),
        ({"spec": {"volumes": [{"name": "content-x"}]}}, "spec.volumes", "another name"),
        (app_container(command=["x"]), "containers[app].command", "spec.server"),
        (app_container(args=["x"]), "containers[app].args", "spec.server"),
        (app_container(image="x"), "containers[app].image", "use spec.image"),
        (app_container(readinessProbe={"exec": {}}), "readinessProbe", "times and thresholds"),
        (app_container(lifecycle={"preStop": {}}), "preStop", "drainDelaySeconds"),
        (app_container(env=[{"name": "WSGIAPP_CONFIG_A"}]), "env", "another name"),
        (
            app_container(volumeMounts=[{"name": "x", "mountPath": "/prefork/"}]),
            "volumeMounts",
            "another folder",
        ),
        (app_container(ports=[{"containerPort": 9000}]), "ports", "another port"),
        ({"spec": {"initContainers": [{"name": "app"}]}}, "initContainers[app]", "another name"),
        ({"spec": {"containers": [{"name": "agent"}]}}, "containers[agent]", "another name"),
        ({"spec": {"containers": [{"name": "proxy"}]}}, "containers[proxy].image", "image"),
        (
            {
                "spec": {
                    "containers": [{"name": "p", "image": "i", "ports": [{"containerPort": 8000}]}]
                }
            },
            "containers[p].ports",
            "another port",
        ),
    ],
)
def test_what_is_the_operator_s_own_is_refused_with_a_remedy(
    template: Any, field: str, remedy: str
) -> None:
    with pytest.raises(Invalid) as refused:
        make_app(podTemplate=template)
    assert field in refused.value.field
    assert remedy in str(refused.value)


@pytest.mark.parametrize(
    "template",
    [
        {},
        app_container(
            readinessProbe={"periodSeconds": 9}, resources={}, ports=[{"containerPort": 81}]
        ),
        app_container(volumeMounts=[{"mountPath": "/preforked"}], lifecycle={"postStart": {}}),
        {"spec": {"initContainers": [{"name": "agent", "resources": {}}]}},
    ],
)
def test_what_is_not_is_taken(template: Any) -> None:
    assert list(find_faults(template)) == []
