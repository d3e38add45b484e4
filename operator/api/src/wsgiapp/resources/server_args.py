"""prefork's command line, from the spec; `wsgiapp run` uses it as well."""

from collections.abc import Sequence

from wsgiapp.names import APP_PORT, RUN_DIR
from wsgiapp.types import App, Server

# Without it prefork would read a gunicorn.conf.py that happens to lie in the image.
NO_CONFIG_FILE = "none"


def server_arguments(
    app: App,
    *,
    bind: str,
    run_dir: str = RUN_DIR,
    further: Sequence[str] = (),
) -> list[str]:
    """Return prefork's command line after `python3 /prefork`; `wsgiapp run` uses it as well."""
    server = app.server
    arguments = [
        f"--bind={bind}",
        f"--run-dir={run_dir}",
        f"--config={server.config_file or NO_CONFIG_FILE}",
        f"--workers={server.workers}",
        f"--threads={server.threads}",
        f"--timeout={server.request_timeout_s}",
        f"--graceful-timeout={server.graceful_timeout_s}",
        f"--keep-alive={server.keep_alive_s}",
        f"--boot-timeout={app.health_check.startup_timeout_s}",
        f"--max-request-body={server.max_request_body_bytes}",
    ]
    if server.worker_class != "threads":
        arguments.append(f"--worker-class={server.worker_class}")
    if server.max_requests:
        arguments += [
            f"--max-requests={server.max_requests}",
            f"--max-requests-jitter={server.max_requests_jitter}",
        ]
    if server.max_worker_memory_bytes:
        arguments.append(f"--max-worker-memory={server.max_worker_memory_bytes}")
    arguments += log_arguments(server)
    arguments += metric_arguments(server)
    arguments += proxy_arguments(app)
    arguments += further
    arguments += [f"--content={content.name}={content.mount_path}" for content in app.pinned]
    return [*arguments, *server.extra_args, app.callable]


def log_arguments(server: Server) -> list[str]:
    """Return how the server logs: standard output has the requests, standard error all else."""
    arguments = [f"--log-format={server.log_format}"]
    if server.access_log:
        arguments += ["--access-logfile=-"]
        if server.access_log != "json":
            arguments.append(f"--access-logformat={server.access_log}")
        if server.access_log_fields:
            arguments.append(f"--access-log-fields={','.join(server.access_log_fields)}")
    if server.hides_query_strings:
        arguments.append("--hide-query-strings")
    return arguments


def metric_arguments(server: Server) -> list[str]:
    """Return what the histograms of request times keep."""
    arguments = []
    if server.duration_buckets_s:
        bounds = ",".join(str(bound).removesuffix(".0") for bound in server.duration_buckets_s)
        arguments.append(f"--duration-buckets={bounds}")
    if server.keeps_exemplars:
        arguments.append("--exemplars")
    return arguments


def health_arguments(app: App) -> list[str]:
    """Return how a new generation shows its health before a reload lets it serve."""
    if app.health_check.path is None:
        return []
    return [f"--health-path={health_path(app)}", f"--health-host={health_host(app)}"]


def health_path(app: App) -> str | None:
    """Return the path to ask, below the app's own path in the ingress."""
    prefix = app.ingress.path.rstrip("/") if app.ingress is not None else ""
    return None if app.health_check.path is None else prefix + app.health_check.path


def health_host(app: App) -> str:
    """Return the Host to ask with: one that an app which checks it (Django's ALLOWED_HOSTS) knows."""
    if app.ingress is None:
        return f"127.0.0.1:{APP_PORT}"
    return app.ingress.hosts[0].replace("*", "probe")


def proxy_arguments(app: App) -> list[str]:
    """Return what follows from an ingress in front: whom to believe, and where the app lives."""
    if app.ingress is None:
        return []
    arguments = []
    if app.ingress.path != "/":
        arguments.append(f"--script-name={app.ingress.path}")
    # The controller's pods have no fixed addresses. Who wants less says so in extraArgs.
    if not any(item.startswith("--forwarded-allow-ips") for item in app.server.extra_args):
        arguments.append("--forwarded-allow-ips=*")
    return arguments
