"""The way in is true: a host and path lead to the app that shows them, with the limits that the app has."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.cluster import Cluster
from tests.e2e import steady_app
from tests.e2e.conftest import READY_S, AppMaker, LoadMaker
from tests.e2e.namespaces import build_namespace
from tests.support.certificate import make_certificate
from tests.support.kube import Kube, NotFoundError
from tests.support.wait import NotYetError, wait_until
from tests.support.wsgi_app import WsgiApp

CODE = Path(__file__).with_name("apps") / "whoami.py"
TLS_PORT = 18443
LIMIT = 64 * 1024
TIMEOUT_S = 4

Declare = Callable[..., WsgiApp]


@pytest.fixture
def declare(cluster: Cluster, kube: Kube, namespace: str) -> Declare:
    """Return declare(name, host, …): apply a small app, without waiting."""

    def declare(
        name: str,
        host: str,
        *,
        where: str = namespace,
        server: dict[str, Any] | None = None,
        **ingress: Any,
    ) -> WsgiApp:
        code = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "whoami"},
            "data": {"main.py": CODE.read_text()},
        }
        app = steady_app.build_app(where, replicas=1, healthCheck={})
        app["metadata"]["name"] = name
        app["spec"] |= {
            "source": {"configMap": {"name": "whoami"}},
            "env": [{"name": "NAME", "value": name}],
            "server": {"workers": 1, "threads": 4, "accessLog": "None", **(server or {})},
            "ingress": {"className": "nginx", "hosts": [host], **ingress},
        }
        kube.apply(code, app, namespace=where)
        return WsgiApp(kube, where, name, host, cluster.ingress_url)

    return declare


@pytest.fixture
def neighbour(kube: Kube, namespace: str) -> Iterator[str]:
    """Another namespace."""
    name = f"{namespace}-b"
    kube.apply(*build_namespace(name), namespace=name)
    yield name
    kube.kubectl("delete", "wsgi", "--all", "-n", name)
    kube.kubectl("delete", "namespace", name, "--wait=false")


def request(
    app: WsgiApp, path: str = "/", *, method: str = "GET", body: bytes | None = None
) -> tuple[int, dict[str, Any]]:
    """Send one request through the ingress; return status and what the app saw."""
    address = urlsplit(app.ingress_url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    try:
        connection.request(method, path, body=body, headers={"Host": app.host})
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    return answer.status, json.loads(text) if answer.status == 200 else {}


def wait_answer(app: WsgiApp, path: str, name: str) -> dict[str, Any]:
    """Wait until a path is answered by the app of that name."""

    def answered() -> dict[str, Any]:
        try:
            status, seen = request(app, path)
        except OSError as error:  # the ingress reloads for another test
            raise NotYetError(f"{path}: {error}") from error
        if seen.get("name") != name:
            raise NotYetError(f"{path}: {status} {seen}")
        return seen

    return wait_until(answered, within_s=30, what=f"{path} to be answered by {name}")


def test_two_apps_share_a_host_by_path_and_lose_no_request_when_it_begins(
    steady: AppMaker, declare: Declare, under_load: LoadMaker
) -> None:
    one = steady()
    # The ingress reloads nginx; see test_rollout.py.
    with under_load(one, "second app on the same host", post_reuse=False) as load:
        two = declare("two", one.host, path="/two")
        two.wait_condition("Ready", "True", within_s=READY_S)
        assert wait_answer(two, "/two", "two")["script"] == "/two"
        load.finish(in_place=False)
    assert wait_answer(two, "/two/three", "two")["path"] == "/three"
    assert request(one, "/twofold")[0] == 404, (
        "the other app's path is a prefix of it by letters only"
    )
    assert two.status()["url"] == f"http://{one.host}/two"
    assert one.condition("Routed").status == two.condition("Routed").status == "True"


@pytest.mark.full
def test_app_of_an_ingress_class_that_does_not_exist_says_so_until_it_does(
    declare: Declare, namespace: str, kube: Kube
) -> None:
    app = declare("lost", f"lost.{namespace}.example.com", className=namespace)
    app.wait_condition("Ready", "True", within_s=READY_S)
    routed = app.condition("Routed")
    assert (routed.status, routed.reason) == ("Unknown", "IngressClassMissing")
    ingress_class = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {"name": namespace},
        "spec": {"controller": "example.com/nobody"},
    }
    kube.apply(ingress_class, namespace=namespace)
    try:
        app.wait_condition("Routed", "True", within_s=90)
    finally:
        kube.kubectl("delete", "ingressclass", namespace)


@pytest.mark.full
def test_shared_host_stays_when_the_app_that_came_first_goes(
    declare: Declare, namespace: str, kube: Kube
) -> None:
    host = f"shared.{namespace}.example.com"
    one, two = declare("one", host), declare("two", host, path="/two")
    for app in (one, two):
        app.wait_condition("Ready", "True", within_s=READY_S)
    wait_answer(one, "/", "one")
    wait_answer(two, "/two", "two")
    kube.kubectl("delete", "wsgi", "one", "-n", namespace, "--wait=false")

    def is_gone() -> bool:
        status, seen = request(two, "/two")
        assert (status, seen["name"]) == (200, "two")
        return request(one, "/")[0] == 404

    wait_until(
        is_gone, within_s=30, what="the first app to be gone, the second one answering all the time"
    )


def test_second_app_with_the_same_url_says_so_and_gets_it_when_the_first_one_goes(
    declare: Declare, namespace: str, neighbour: str, kube: Kube
) -> None:
    host = f"taken.{namespace}.example.com"
    one = declare("one", host)
    one.wait_condition("Ready", "True", within_s=READY_S)
    two = declare("two", host, where=neighbour)
    routed = two.wait_condition("Routed", "False", within_s=30, reason="RouteTaken")
    assert f"WsgiApp {namespace}/one" in routed.message
    assert two.status()["url"] == f"http://two.{neighbour}.svc"
    assert two.condition("Ready").status == "False"
    wait_answer(one, "/", "one")

    kube.kubectl("delete", "wsgi", "one", "-n", namespace)
    two.wait_condition("Routed", "True", within_s=30)
    assert two.status()["url"] == f"http://{host}/"
    wait_answer(two, "/", "two")


def test_limits_of_the_server_hold_through_the_ingress_to_the_byte_and_the_second(
    declare: Declare, namespace: str
) -> None:
    host = f"limits.{namespace}.example.com"
    server = {
        "maxRequestBody": LIMIT, "requestTimeoutSeconds": TIMEOUT_S, "gracefulTimeoutSeconds": 30,
    }  # fmt: skip
    app = declare("limits", host, server=server)
    app.wait_condition("Ready", "True", within_s=READY_S)
    wait_answer(app, "/", "limits")
    exact = request(app, method="POST", body=b"x" * LIMIT)
    assert (exact[0], exact[1].get("bytes")) == (200, LIMIT)
    assert request(app, method="POST", body=b"x" * (LIMIT + 1))[0] == 413
    assert request(app, f"/?seconds={TIMEOUT_S - 1}")[0] == 200
    started = time.monotonic()
    assert request(app, f"/?seconds={TIMEOUT_S + 6}")[0] == 504
    assert time.monotonic() - started < TIMEOUT_S + 5, "the server answers, not the app's end"


def test_tls_by_secret(declare: Declare, namespace: str, kube: Kube) -> None:
    host = f"tls.{namespace}.example.com"
    app = declare("tls", host, tls={"secretName": "site"})
    missing = app.wait_condition("Routed", "False", within_s=30, reason="TLSSecretMissing")
    assert "kubectl create secret tls site" in missing.message

    crt, key = make_certificate(host)
    _, other = make_certificate(host)
    kube.apply(tls_secret(crt, other), namespace=namespace)
    app.wait_condition("Routed", "False", within_s=30, reason="TLSSecretInvalid")

    def is_refused() -> bool:
        try:
            request_tls(host, crt)
        except ssl.SSLError:
            return True
        except OSError as error:  # the ingress reloads for another test
            raise NotYetError(str(error)) from error
        return False

    wait_until(is_refused, within_s=30, what="the wrong certificate to be of no use")

    kube.apply(tls_secret(crt, key), namespace=namespace)
    app.wait_condition("Ready", "True", within_s=READY_S)
    assert app.status()["url"] == f"https://{host}/"

    def answered() -> dict[str, Any]:
        try:
            return request_tls(host, crt)
        except (OSError, ValueError) as error:
            raise NotYetError(str(error)) from error

    seen = wait_until(answered, within_s=30, what="the app to answer by TLS")
    assert (seen["name"], seen["scheme"]) == ("tls", "https")
    assert request(app)[0] == 301, "plain HTTP is sent to HTTPS"


def tls_secret(crt: bytes, key: bytes) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": "site"},
        "stringData": {"tls.crt": crt.decode(), "tls.key": key.decode()},
    }


def request_tls(host: str, trusted: bytes) -> dict[str, Any]:
    """Ask by TLS for the host, whose certificate must be the trusted one."""
    context = ssl.create_default_context(cadata=trusted.decode())
    with ssl_connection(host, context) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        seen: dict[str, Any] = json.loads(answer.read())
        return seen


def ssl_connection(host: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", TLS_PORT), timeout=10)
    return context.wrap_socket(plain, server_hostname=host)


def test_service_fields_reach_the_service_and_the_ingress_and_go_again(
    declare: Declare, namespace: str, kube: Kube
) -> None:
    app = declare("ports", f"ports.{namespace}.example.com")
    app.wait_condition("Ready", "True", within_s=READY_S)
    fields = {"port": 8080, "type": "NodePort", "annotations": {"example.com/internal": "true"}}
    kube.patch("wsgiapp", "ports", {"spec": {"service": fields}}, namespace=namespace)

    def looks(port: int, kind: str, annotation: str | None) -> bool:
        service = kube.get("services", "ports", namespace=namespace)
        found = (
            service["spec"]["ports"][0]["port"],
            service["spec"]["type"],
            (service["metadata"].get("annotations") or {}).get("example.com/internal"),
        )
        if found != (port, kind, annotation):
            raise NotYetError(str(found))
        return True

    wait_until(lambda: looks(8080, "NodePort", "true"), within_s=30, what="the Service's fields")
    wait_answer(app, "/", "ports")
    kube.patch("wsgiapp", "ports", {"spec": {"service": None}}, namespace=namespace)
    wait_until(lambda: looks(80, "ClusterIP", None), within_s=30, what="the Service as it was")
    assert "nodePort" not in kube.get("services", "ports", namespace=namespace)["spec"]["ports"][0]
    wait_answer(app, "/", "ports")


@pytest.mark.full
def test_port_of_the_service_changes_and_no_request_through_the_ingress_fails(
    steady: AppMaker, under_load: LoadMaker, namespace: str, kube: Kube
) -> None:
    app = steady()

    def number() -> int:
        service = kube.get("services", app.name, namespace=namespace)
        return int(service["spec"]["ports"][0]["port"])

    with under_load(app, "another port of the Service, and back") as load:
        for port in (8080, 8081, 80):
            kube.patch(
                "wsgiapp", app.name, {"spec": {"service": {"port": port}}}, namespace=namespace
            )
            wait_until(lambda port=port: number() == port, what=f"port {port}")  # type: ignore[misc]
            app.wait_condition("Ready", "True", within_s=30)
            load.run_on(2)
        load.finish(in_place=True)


def test_disruption_budget_follows_the_spec(declare: Declare, namespace: str, kube: Kube) -> None:
    declare("budget", f"budget.{namespace}.example.com")

    def bounds() -> tuple[Any, Any]:
        spec = kube.get("poddisruptionbudgets", "budget", namespace=namespace)["spec"]
        return spec.get("minAvailable"), spec.get("maxUnavailable")

    wait_until(lambda: bounds() == (None, 1), within_s=30, what="the default budget")
    change: dict[str, Any] = {"spec": {"disruptionBudget": {"minAvailable": "50%"}}}
    kube.patch("wsgiapp", "budget", change, namespace=namespace)
    wait_until(lambda: bounds() == ("50%", None), within_s=30, what="minAvailable")
    change = {"spec": {"disruptionBudget": {"enabled": False, "minAvailable": None}}}
    kube.patch("wsgiapp", "budget", change, namespace=namespace)

    def is_gone() -> bool:
        try:
            bounds()
        except NotFoundError:
            return True
        return False

    wait_until(is_gone, within_s=30, what="no budget")


@pytest.mark.full
def test_changed_environment_source_replaces_the_pods(
    declare: Declare, namespace: str, kube: Kube
) -> None:
    def source(name: str) -> dict[str, Any]:
        kind = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "names"}}
        return {**kind, "data": {"NAME": name}}

    kube.apply(source("first"), namespace=namespace)
    app = declare("env", f"env.{namespace}.example.com")
    entry = {"configMapRef": {"name": "names"}, "onChange": "Restart"}
    kube.patch("wsgiapp", "env", {"spec": {"env": [], "envFrom": [entry]}}, namespace=namespace)
    wait_answer(app, "/", "first")
    app.wait_condition("Ready", "True", within_s=READY_S)
    kube.apply(source("second"), namespace=namespace)
    wait_answer(app, "/", "second")
