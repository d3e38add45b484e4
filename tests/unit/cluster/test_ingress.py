"""The test ingress controller behaves like the real one where tests can tell: endpoints, defaults, refusals."""

from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.ingress.certificates import write_certificates
from tests.cluster.ingress.model import Rejected, Site, build_sites
from tests.cluster.ingress.render import NO_ENDPOINT, render
from tests.support.certificate import make_certificate

Manifest = dict[str, Any]


def _ingress(
    *,
    host: str = "shop.example.com",
    name: str = "shop",
    created: str = "2026-01-01T00:00:00Z",
    **changes: Any,
) -> Manifest:
    backend = {"service": {"name": "shop", "port": changes.get("port", {"name": "http"})}}
    path = {
        "path": changes.get("path", "/"),
        "pathType": changes.get("type", "Prefix"),
        "backend": backend,
    }
    tls = [{"hosts": [host], "secretName": changes["tls"]}] if "tls" in changes else []
    paths = [] if "path" in changes and changes["path"] is None else [path]
    return {
        "metadata": {
            "namespace": changes.get("namespace", "default"),
            "name": name,
            "creationTimestamp": created,
            "annotations": changes.get("annotations", {}),
        },
        "spec": {
            "ingressClassName": changes.get("ingress_class", "nginx"),
            "rules": [{"host": host, "http": {"paths": paths}}],
            "tls": tls,
        },
    }


SERVICE: Manifest = {
    "metadata": {"namespace": "default", "name": "shop"},
    "spec": {"ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
}


def _slice(*endpoints: tuple[str, dict[str, bool]]) -> Manifest:
    return {
        "metadata": {"namespace": "default", "labels": {"kubernetes.io/service-name": "shop"}},
        "ports": [{"name": "http", "port": 8000}],
        "endpoints": [
            {"addresses": [address], "conditions": conditions} for address, conditions in endpoints
        ],
    }


READY = _slice(("10.0.0.1", {"ready": True}))


def _serve(*ingresses: Manifest, slices: tuple[Manifest, ...] = (READY,)) -> list[Site]:
    sites, rejected = build_sites(ingresses, [SERVICE], slices)
    assert rejected == []
    return sites


def _reject(*ingresses: Manifest) -> list[Rejected]:
    return build_sites(ingresses, [SERVICE], [READY])[1]


def test_only_ready_endpoints_are_served() -> None:
    slices = _slice(
        ("10.0.0.3", {"ready": True}),
        ("10.0.0.1", {"ready": True}),
        ("10.0.0.2", {"ready": False}),
        ("10.0.0.4", {"ready": False, "serving": True, "terminating": True}),
    )
    (site,) = _serve(_ingress(), slices=(slices,))
    assert site.locations[0].upstream.addresses == ("10.0.0.1:8000", "10.0.0.3:8000")


@pytest.mark.parametrize("port", [{"name": "http"}, {"number": 80}])
def test_backend_port_is_found_by_name_and_by_number(port: Manifest) -> None:
    (site,) = _serve(_ingress(port=port))
    assert site.locations[0].upstream.addresses == ("10.0.0.1:8000",)


def test_backend_without_ready_endpoint_answers_502() -> None:
    text = render(_serve(_ingress(), slices=()), 1)
    assert f"server {NO_ENDPOINT} max_fails=1" in text


def test_other_ingress_classes_are_left_alone() -> None:
    assert _serve(_ingress(ingress_class="haproxy")) == []


def test_older_ingress_keeps_a_host_that_two_claim() -> None:
    old, new = _ingress(name="old"), _ingress(name="new", created="2026-02-01T00:00:00Z")
    (rejected,) = _reject(new, old)
    assert rejected.ingress == "default/new"
    assert "shop.example.com" in rejected.reason


@pytest.mark.parametrize(
    ("annotations", "named"),
    [
        ({"nginx.org/keepalives": "3"}, "nginx.org/keepalives"),
        ({"nginx.org/max-fails": "few"}, "nginx.org/max-fails"),
        ({"nginx.org/proxy-read-timeout": "5s; return 200"}, "nginx.org/proxy-read-timeout"),
        ({"nginx.org/client-max-body-size": "16 M"}, "nginx.org/client-max-body-size"),
    ],
)
def test_bad_annotation_rejects_the_ingress_and_is_named(
    annotations: dict[str, str], named: str
) -> None:
    (rejected,) = _reject(_ingress(annotations=annotations))
    assert named in rejected.reason


def test_rejected_ingress_does_not_disturb_the_others() -> None:
    bad = _ingress(name="bad", host="bad.example.com", annotations={"nginx.org/max-fails": "x"})
    sites, rejected = build_sites([bad, _ingress()], [SERVICE], [READY])
    assert [site.host for site in sites] == ["shop.example.com"]
    assert [entry.ingress for entry in rejected] == ["default/bad"]


def test_defaults_are_those_of_the_real_controller() -> None:
    text = render(_serve(_ingress()), 1)
    for expected in (
        "random two least_conn;",
        "server 10.0.0.1:8000 max_fails=1 fail_timeout=10s;",
        "proxy_next_upstream error timeout;",
        "proxy_connect_timeout 60s;",
        "client_max_body_size 1m;",
        'proxy_set_header Connection "";',
        "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
    ):
        assert expected in text


def test_annotations_replace_the_defaults() -> None:
    annotations = {
        "nginx.org/keepalive": "64",
        "nginx.org/proxy-connect-timeout": "2s",
        "nginx.org/proxy-next-upstream": "error timeout http_502",
        "nginx.org/proxy-next-upstream-tries": "3",
        "nginx.org/max-fails": "0",
        "nginx.org/client-max-body-size": "16m",
        "nginx.org/proxy-buffering": "False",
        "nginx.org/proxy-buffer-size": "16k",
        "nginx.org/location-snippets": "proxy_request_buffering off;",
    }
    text = render(_serve(_ingress(annotations=annotations)), 1)
    for expected in (
        "keepalive 64;",
        "proxy_connect_timeout 2s;",
        "proxy_next_upstream error timeout http_502;",
        "proxy_next_upstream_tries 3;",
        "max_fails=0",
        "client_max_body_size 16m;",
        "proxy_buffering off;",
        "proxy_buffer_size 16k;",
        "proxy_request_buffering off;",
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("path", "kind", "locations"),
    [
        ("/", "Prefix", ['location "/" {']),
        ("/shop", "Prefix", ['location "/shop" {', "location / { return 404; }"]),
        ("/shop", "Exact", ['location = "/shop" {', "location / { return 404; }"]),
    ],
)
def test_paths_match_as_nginx_prefixes_do(path: str, kind: str, locations: list[str]) -> None:
    server = render(_serve(_ingress(path=path, type=kind)), 1).rpartition("server_name")[2]
    found = [line.strip() for line in server.splitlines() if line.strip().startswith("location")]
    assert found == locations


def _master(host: str = "shop.example.com", **changes: Any) -> Manifest:
    annotations = {"nginx.org/mergeable-ingress-type": "master"} | changes.pop("annotations", {})
    return _ingress(name="host", host=host, path=None, annotations=annotations, **changes)


def _minion(name: str, path: str, **changes: Any) -> Manifest:
    annotations = {"nginx.org/mergeable-ingress-type": "minion"} | changes.pop("annotations", {})
    return _ingress(name=name, path=path, annotations=annotations, **changes)


def test_master_and_minions_share_a_host() -> None:
    (site,) = _serve(_minion("one", "/"), _master(), _minion("two", "/two", namespace="other"))
    assert [(each.path, each.upstream.name.split("-")[1]) for each in site.locations] == [
        ("/", "one"),
        ("/two", "two"),
    ]


def test_plain_ingress_that_is_older_keeps_the_host_from_a_master() -> None:
    plain = _ingress(name="plain", created="2025-01-01T00:00:00Z")
    sites, rejected = build_sites([_master(), _minion("one", "/one"), plain], [SERVICE], [READY])
    assert [each.path for each in sites[0].locations] == ["/"]
    assert {each.ingress for each in rejected} == {"default/host", "default/one"}


def test_second_master_stands_by_until_the_first_one_goes() -> None:
    one, two = _master(), _master(namespace="other", created="2026-02-01T00:00:00Z")
    minion = _minion("one", "/one")
    assert [each.ingress for each in _reject(one, two, minion)] == ["other/host"]
    (site,) = _serve(two, minion)
    assert [each.path for each in site.locations] == ["/one"]


def test_older_minion_keeps_a_path_that_two_claim() -> None:
    old, new = _minion("old", "/"), _minion("new", "/", created="2026-02-01T00:00:00Z")
    (rejected,) = _reject(_master(), new, old)
    assert rejected.ingress == "default/new"


def test_minion_inherits_what_is_not_about_the_whole_host() -> None:
    master = _master(annotations={"nginx.org/proxy-read-timeout": "9s", "nginx.org/hsts": "true"})
    own = _minion("own", "/own", annotations={"nginx.org/proxy-read-timeout": "5s"})
    (site,) = _serve(master, own, _minion("other", "/other"))
    settings = {each.path: each.settings for each in site.locations}
    assert settings["/own"]["proxy-read-timeout"] == "5s"
    assert settings["/other"] == {"proxy-read-timeout": "9s"}


@pytest.mark.parametrize(
    ("ingress", "named"),
    [
        (_minion("alone", "/"), "no master"),
        (_ingress(annotations={"nginx.org/mergeable-ingress-type": "master"}), "has paths"),
        (_minion("shop", "/", tls="shop-tls"), "tls"),
    ],
)
def test_wrong_master_or_minion_is_rejected(ingress: Manifest, named: str) -> None:
    (rejected,) = _reject(ingress)
    assert named in rejected.reason


def test_tls_uses_the_secret_and_sends_plain_http_there() -> None:
    ingress = _ingress(tls="shop-tls")
    sites, _ = build_sites([ingress], [SERVICE], [READY], {("default", "shop-tls"): "/tmp/a.pem"})
    text = render(sites, 1)
    assert "ssl_certificate /tmp/a.pem;" in text
    assert "return 301 https://$host:18443$request_uri;" in text


def test_missing_secret_refuses_the_handshake_for_that_host() -> None:
    text = render(_serve(_ingress(tls="absent")), 1).rpartition("server_name")[2]
    assert "ssl_reject_handshake on;" in text


def test_wrong_certificate_is_left_out(tmp_path: Path) -> None:
    def secret(name: str, crt: bytes, key: bytes) -> Manifest:
        data = {"tls.crt": b64encode(crt).decode(), "tls.key": b64encode(key).decode()}
        return {"metadata": {"namespace": "default", "name": name}, "data": data}

    crt, key = make_certificate("shop.example.com")
    _, other = make_certificate("shop.example.com")
    secrets = [secret("good", crt, key), secret("mixed", crt, other), secret("text", b"a", b"b")]
    assert write_certificates(secrets, tmp_path).keys() == {("default", "good")}


def test_configuration_is_the_same_whatever_the_order_of_the_objects() -> None:
    one, two = _ingress(), _ingress(name="b", host="b.example.com")
    assert render(_serve(one, two), 1) == render(_serve(two, one), 1)
