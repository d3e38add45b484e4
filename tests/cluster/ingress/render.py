"""Sites → nginx.conf, with the F5 controller's defaults. Pure.

nginx from 1.29.7 on keeps connections to backends open without being told; the older nginx in here is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .model import Location, Site, Upstream

LISTEN = "127.0.0.1:18080"
TLS_PORT = 18443
LISTEN_TLS = f"127.0.0.1:{TLS_PORT}"
VERSION_SOCKET = "/tmp/config-version.sock"
# Answers for a backend without a ready endpoint, as the real controller's does.
NO_ENDPOINT = "unix:/tmp/no-endpoint.sock"

HEAD = """\
worker_processes auto;
daemon off;
pid /tmp/nginx.pid;
error_log stderr error;
events {
  worker_connections 4096;
}
http {
  client_body_temp_path /tmp/body;
  proxy_temp_path /tmp/proxy;
  fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi;
  scgi_temp_path /tmp/scgi;
  default_type application/octet-stream;
  server_names_hash_max_size 1024;
  server_names_hash_bucket_size 256;
  variables_hash_bucket_size 256;
  keepalive_timeout 75s;
  keepalive_requests 1000;
  # Whatever went wrong is worth a line; the rest would only cost time under load.
  map $status $is_failure {
    ~^5 1;
    499 1;
    default 0;
  }
  log_format failure '$time_iso8601 $host "$request" $status upstream=$upstream_addr '
                     'upstream_status=$upstream_status after=$request_time';
  access_log /dev/stdout failure if=$is_failure;
"""


def render(sites: Sequence[Site], version: int) -> str:
    """The whole configuration; `version` is what `VERSION_SOCKET` answers once nginx runs it."""
    return "".join([HEAD, *_service_servers(version), *map(_site, sites), "}\n"])


def _service_servers(version: int) -> Iterator[str]:
    yield f"""\
  server {{
    listen unix:{VERSION_SOCKET};
    access_log off;
    location / {{ return 200 "{version}"; }}
  }}
  server {{
    listen {NO_ENDPOINT};
    access_log off;
    location / {{ return 502; }}
  }}
  server {{
    listen {LISTEN} default_server;
    server_name _;
    access_log off;
    location = /healthz {{ return 200 "ok\\n"; }}
    location / {{ return 404; }}
  }}
  server {{
    listen {LISTEN_TLS} ssl default_server;
    server_name _;
    access_log off;
    ssl_reject_handshake on;
  }}
"""


def _site(site: Site) -> str:
    upstreams = {location.upstream.name: location.upstream for location in site.locations}
    return "".join([*map(_upstream, upstreams.values()), *_server(site)])


def _upstream(upstream: Upstream) -> str:
    settings = upstream.settings
    max_fails, fail_timeout = settings.get("max-fails", "1"), settings.get("fail-timeout", "10s")
    addresses = upstream.addresses or (NO_ENDPOINT,)
    servers = "".join(
        f"    server {address} max_fails={max_fails} fail_timeout={fail_timeout};\n"
        for address in addresses
    )
    return (
        f"  upstream {upstream.name} {{\n"
        f"    zone {upstream.name} 256k;\n"
        f"    {settings.get('lb-method', 'random two least_conn')};\n"
        f"{servers}"
        f"{_keepalive(settings)}"
        "  }\n"
    )


def _keepalive(settings: Mapping[str, str]) -> str:
    count = settings.get("keepalive", "32")
    return "" if count == "0" else f"    keepalive {count};\n"


def _server(site: Site) -> Iterator[str]:
    yield f"  server {{\n    listen {LISTEN};\n    server_name {site.host};\n"
    yield from _tls(site)
    if _is_on(site.settings, "redirect-to-https"):
        yield "    if ($http_x_forwarded_proto != https) { return 301 https://$host$request_uri; }\n"
    if snippet := site.settings.get("server-snippets"):
        yield _indented(snippet, 4)
    for location in site.locations:
        yield from _location(location)
    if all(location.path != "/" for location in site.locations):
        yield "    location / { return 404; }\n"
    yield "  }\n"


def _tls(site: Site) -> Iterator[str]:
    """HTTPS, and plain HTTP sent there, unless the Ingress says otherwise."""
    if site.tls is None:
        return
    yield f"    listen {LISTEN_TLS} ssl;\n"
    if site.tls.file is None:
        yield "    ssl_reject_handshake on;\n"
    else:
        yield f"    ssl_certificate {site.tls.file};\n    ssl_certificate_key {site.tls.file};\n"
    if _is_on(site.settings, "ssl-redirect", default=True):
        target = f"https://$host:{TLS_PORT}$request_uri"
        yield f"    if ($scheme = http) {{ return 301 {target}; }}\n"


def _location(location: Location) -> Iterator[str]:
    """A Prefix is nginx's own, as in the real controller: /shop matches /shopping too."""
    body = "".join(_proxy(location.upstream, location.settings))
    exact = "= " if location.is_exact else ""
    yield f"    location {exact}{_quoted(location.path)} {{\n{body}    }}\n"


def _quoted(path: str) -> str:
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _proxy(upstream: Upstream, settings: Mapping[str, str]) -> Iterator[str]:
    directives = {
        "proxy_connect_timeout": settings.get("proxy-connect-timeout", "60s"),
        "proxy_read_timeout": settings.get("proxy-read-timeout", "60s"),
        "proxy_send_timeout": settings.get("proxy-send-timeout", "60s"),
        "client_max_body_size": settings.get("client-max-body-size", "1m"),
        "proxy_next_upstream": settings.get("proxy-next-upstream", "error timeout"),
        "proxy_next_upstream_timeout": settings.get("proxy-next-upstream-timeout", "0"),
        "proxy_next_upstream_tries": settings.get("proxy-next-upstream-tries", "0"),
        "proxy_buffering": "on" if _is_on(settings, "proxy-buffering", default=True) else "off",
    }
    if size := settings.get("proxy-buffer-size"):
        directives["proxy_buffer_size"] = size
    headers = {
        "Connection": "close" if settings.get("keepalive") == "0" else '""',
        "Host": "$host",
        "X-Real-IP": "$remote_addr",
        "X-Forwarded-For": "$proxy_add_x_forwarded_for",
        "X-Forwarded-Host": "$host",
        "X-Forwarded-Port": "$server_port",
        "X-Forwarded-Proto": "$scheme",
    }
    yield "      proxy_http_version 1.1;\n"
    for name, value in directives.items():
        yield f"      {name} {value};\n"
    for name, value in headers.items():
        yield f"      proxy_set_header {name} {value};\n"
    if snippet := settings.get("location-snippets"):
        yield _indented(snippet, 6)
    yield f"      proxy_pass http://{upstream.name};\n"


def _is_on(settings: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    value = settings.get(name)
    return default if value is None else value.lower() in ("on", "true")


def _indented(snippet: str, spaces: int) -> str:
    return "".join(f"{' ' * spaces}{line}\n" for line in snippet.splitlines())
