"""The dashboard of one app: what its clients see, whether there is room, what its pods do."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import units

from monitoring.dashboards import board, panels
from monitoring.dashboards.panels import Query, figure, lines, spread, states
from monitoring.dashboards.queries import ONE_APP, growth, quantile, rate, state_by

RESPONSE = "wsgi_http_response_time_seconds"
QUEUE = "wsgi_http_request_queue_duration_seconds"
CALL = "wsgi_http_request_duration_seconds"
REQUESTS = "wsgi_http_requests_total"
ALL_REQUESTS = f"sum({rate(REQUESTS, ONE_APP)})"
FAILED_REQUESTS = f"""sum({rate(REQUESTS, ONE_APP, 'code=~"5.."')})"""
NO_CONTENT = f'label_replace(count(wsgi_build_info{{{ONE_APP}}}), "content", "none", "", "")'


def gauge(metric: str, *more: str) -> str:
    return f"{metric}{{{', '.join((ONE_APP, *more))}}}"


def build() -> builders.Dashboard:
    """Return the dashboard `WsgiApp / app`."""
    made = board.start(
        "wsgiapp-app",
        "WsgiApp / app",
        "One app: what its clients see, whether there is room, what its pods and workers do.",
    )
    made = board.add_scope(made, one_app=True)
    made = board.annotate_reloads(made, ONE_APP)
    for title, row in (
        ("How is the app now?", _now()),
        ("What do clients see?", _clients()),
        ("What do pods and workers do?", _pods()),
        ("Is there room?", _room()),
    ):
        made = board.add_row(made, title, row)
    return made


def _now() -> list[panels.Panel]:
    return [
        figure(
            "Are all pods ready?",
            "Share of the pods whose /readyz answers 200. The row of pods below gives the reason.",
            f"sum({gauge('wsgi_ready')}) / count({gauge('wsgi_build_info')})",
            unit=units.PercentUnit,
            base=panels.RED,
            steps={0.5: panels.ORANGE, 1: panels.GREEN},
        ),
        figure(
            "How many requests/s?",
            "Requests answered per second by all pods, probes left out.",
            ALL_REQUESTS,
            unit=units.RequestsPerSecond,
            base=panels.BLUE,
        ),
        figure(
            "What share fails?",
            "Share of the requests answered with 5xx. The objective of the shipped alerts is 0.1 %.",
            f"({FAILED_REQUESTS} or vector(0)) / {ALL_REQUESTS}",
            unit=units.PercentUnit,
            steps={0.001: panels.ORANGE, 0.01: panels.RED},
            decimals=2,
        ),
        figure(
            "How slow are answers?",
            "Time to the end of the answer that 95 of 100 requests do not exceed, waiting included.",
            quantile(0.95, RESPONSE, ONE_APP),
            unit=units.Seconds,
            base=panels.BLUE,
        ),
        figure(
            "How busy are the threads?",
            "App threads in a call, of all app threads. Above 90 % requests begin to wait.",
            f"sum({gauge('wsgi_threads_busy')}) / sum({gauge('wsgi_threads')})",
            unit=units.PercentUnit,
            steps={0.7: panels.ORANGE, 0.9: panels.RED},
        ),
        figure(
            "Same content in all pods?",
            "Versions of the same ConfigMap or Secret served at once: more than one while a reload goes from pod to pod.",
            f"max(count by (content) (count by (content, digest) ({gauge('wsgi_content_info')}))) or vector(1)",
            unit=units.NoUnit,
            texts={
                1: ("yes", panels.GREEN),
                2: ("2 versions", panels.BLUE),
                3: ("3 versions", panels.ORANGE),
            },
        ),
    ]


def _clients() -> list[panels.Panel]:
    return [
        lines(
            "How are requests answered?",
            "Requests per second by status code, the server's own answers included.",
            Query(f"sum by (code) ({rate(REQUESTS, ONE_APP)}) > 0", "{{code}}"),
            unit=units.RequestsPerSecond,
            colours=panels.CODE_COLOURS,
            stacked=True,
        ),
        lines(
            "How long do clients wait?",
            "From the complete request to the end of its answer: waiting for a thread and the app's call.",
            *(
                # All three have the same exemplars.
                Query(quantile(share, RESPONSE, ONE_APP), name, exemplars=name == "p99")
                for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
            ),
            unit=units.Seconds,
            colours=panels.QUANTILE_COLOURS,
        ),
        spread(
            "How are response times distributed?",
            "Requests per second by the time that the client waits. Two bands are two kinds of requests.",
            f"sum by (le) ({rate(f'{RESPONSE}_bucket', ONE_APP)})",
        ),
        lines(
            "Where does the time go?",
            "p95 of waiting for a thread and of the app's call. Waiting grows where threads are missing, calls where the app or what it calls is slow.",
            Query(quantile(0.95, QUEUE, ONE_APP), "waits for a thread"),
            Query(quantile(0.95, CALL, ONE_APP), "call of the app"),
            unit=units.Seconds,
            colours={"waits for a thread": panels.ORANGE, "call of the app": panels.BLUE},
        ),
    ]


def _room() -> list[panels.Panel]:
    return [
        lines(
            "How many threads are busy?",
            "App threads in a call and all there are, in all pods. More threads, workers or pods raise the line.",
            Query(f"sum({gauge('wsgi_threads_busy')})", "busy"),
            Query(f"sum({gauge('wsgi_threads')})", "all"),
            unit=units.Short,
            colours={"busy": panels.ORANGE, "all": panels.GREY},
        ),
        lines(
            "Are requests waiting?",
            "Complete requests that wait in a worker for a thread, and connections not yet accepted.",
            Query(f"sum({gauge('wsgi_http_requests_waiting')})", "requests in workers"),
            Query(f"sum({gauge('wsgi_listen_queue_depth')})", "connections in the accept queue"),
            unit=units.Short,
            colours={
                "requests in workers": panels.ORANGE,
                "connections in the accept queue": panels.PURPLE,
            },
        ),
        lines(
            "How full is the accept queue?",
            "Connections that wait to be accepted, of the room there is; the fullest pod. At 100 % the kernel refuses connections.",
            Query(
                f"max({gauge('wsgi_listen_queue_depth')} / ({gauge('wsgi_listen_queue_limit')} > 0))",
                "fullest pod",
            ),
            unit=units.PercentUnit,
            colours={"fullest pod": panels.PURPLE},
            limit=0.8,
            top=1,
        ),
        lines(
            "Are requests lost?",
            "Connections refused because the accept queue was full, requests ended by the timeout, clients that left before their answer was sent.",
            Query(f"sum({growth('wsgi_listen_overflows_total', ONE_APP)})", "refused"),
            Query(f"sum({growth('wsgi_request_timeouts_total', ONE_APP)})", "timed out"),
            Query(f"sum({growth('wsgi_http_disconnects_total', ONE_APP)})", "client left"),
            unit=units.Short,
            colours={
                "refused": panels.RED,
                "timed out": panels.ORANGE,
                "client left": panels.GREY,
            },
            bars=True,
        ),
    ]


def _pods() -> list[panels.Panel]:
    return [
        states(
            "What does each pod do?",
            "Not ready, serving, replacing workers (a reload, or workers that ended), or a reload that failed: the old content is still served then.",
            Query(state_by("pod", ONE_APP), "{{pod}}"),
            texts=panels.STATES,
        ),
        lines(
            "How many pods serve which content?",
            "Pods by the digest of each ConfigMap or Secret they serve. Two digests of one content for a long time: a reload is stuck.",
            Query(
                f"count by (content, digest) ({gauge('wsgi_content_info')}) or on() {NO_CONTENT}",
                "{{content}} {{digest}}",
            ),
            unit=units.Short,
        ),
        lines(
            "What state are the workers in?",
            "Worker processes of all pods. Stuck workers do not react and are replaced.",
            Query(f"sum by (state) ({gauge('wsgi_workers')}) > 0", "{{state}}"),
            unit=units.Short,
            colours=panels.WORKER_COLOURS,
            stacked=True,
        ),
        lines(
            "Why do workers end?",
            "Workers that ended, by reason: retired (reload, fewer workers) and max_requests are planned, all others are not.",
            Query(f"sum by (reason) ({growth('wsgi_worker_exits_total', ONE_APP)})", "{{reason}}"),
            unit=units.Short,
            colours=panels.EXIT_COLOURS,
            bars=True,
            stacked=True,
        ),
        lines(
            "Does a request hang?",
            "Age of the oldest call in each pod. A line that climbs steadily is a call that does not end.",
            Query(f"max by (pod) ({gauge('wsgi_worker_request_elapsed_seconds')})", "{{pod}}"),
            unit=units.Seconds,
        ),
        states(
            "Why is a pod not ready?",
            "The reason why /readyz of a pod answers 503; all green where every pod is ready.",
            Query(f"max by (reason) ({gauge('wsgi_not_ready')})", "{{reason}}"),
            texts={0: ("no pod", panels.GREEN), 1: ("at least one pod", panels.ORANGE)},
        ),
        lines(
            "How much memory does each worker use?",
            "Memory of each worker, shared pages divided among those who share them. A slope that does not end is a leak.",
            Query(
                f"max by (pod, worker) ({gauge('wsgi_worker_proportional_memory_bytes')})",
                "{{pod}} {{worker}}",
            ),
            unit=units.BytesIEC,
            has_many=True,
        ),
        lines(
            "How near is each pod to its memory limit?",
            "Memory in use by the app's container, of its limit; nothing where it has none. Near 100 % the kernel kills processes.",
            Query(
                f"max by (pod) ({gauge('wsgi_memory_working_set_bytes')} / {gauge('wsgi_memory_limit_bytes')})",
                "{{pod}}",
            ),
            unit=units.PercentUnit,
            limit=0.9,
            top=1,
        ),
    ]
