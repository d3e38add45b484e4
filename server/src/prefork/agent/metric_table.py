"""Every metric of the agent, declared once: what it is, its labels, and the question it answers.

`metrics` builds what Prometheus reads from these rows, and docs/metrics.md is written from them. Labels are bounded,
and none is one that Prometheus puts on a target (namespace, pod, container, job, instance, …): those would be renamed
`exported_…`.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram", "summary", "info"]


@dataclass(frozen=True)
class Row:
    """One metric; `name` as Prometheus has it (`_total`, `_info`)."""

    name: str
    kind: Kind
    help: str
    question: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """Metrics that belong together, on the page."""

    title: str
    rows: tuple[Row, ...]


SECTIONS = (
    Section("Traffic", (
        Row("wsgi_http_requests_total", "counter", "Requests answered, also by the server itself; without probes.",
            "How much traffic is there, and how much of it fails?", ("method", "code")),
        Row("wsgi_http_response_time_seconds", "histogram", "Time from a complete request to the end of the call that answers it.",
            "How long do clients wait for this server?"),
        Row("wsgi_http_request_duration_seconds", "histogram", "Time from the call of the app to the end of its response.",
            "How long does the app take?", ("code_class",)),
        Row("wsgi_http_request_queue_duration_seconds", "histogram", "Time from a complete request to the call of the app.",
            "How long do requests wait for a free thread?"),
        Row("wsgi_http_requests_in_flight", "gauge", "Calls of the app that are running.",
            "How many requests are being worked on?"),
        Row("wsgi_http_requests_waiting", "gauge", "Requests that are complete and wait in a worker for a free thread.",
            "Does work pile up? A proxy that keeps its connections open fills this queue, not the accept queue."),
        Row("wsgi_http_requests_rejected_total", "counter", "Requests the server answered itself because they were not valid.",
            "Do clients send what is not HTTP, too large, or too slow?"),
        Row("wsgi_request_timeouts_total", "counter", "Requests that took longer than the timeout.",
            "Do calls of the app hang?"),
        Row("wsgi_http_disconnects_total", "counter", "Clients that left, or ended their side of the connection, before their answer was sent.",
            "Do clients give up?"),
        Row("wsgi_http_received_bytes_total", "counter", "Bytes received from clients.", "How much do clients send?"),
        Row("wsgi_http_sent_bytes_total", "counter", "Bytes sent to clients.", "How much is sent to clients?"),
        Row("wsgi_probe_requests_total", "counter", "Requests of the agent for the app's health; counted nowhere else.",
            "Is the app probed? With a readiness probe this grows, and the traffic's metrics do not."),
    )),
    Section("Connections", (
        Row("wsgi_connections", "gauge", "Connections open.", "How many clients or proxies are connected?"),
        Row("wsgi_connections_accepted_total", "counter", "Connections taken from the accept queue.",
            "Do clients keep their connections, or open a new one for each request?"),
        Row("wsgi_connections_handed_over_total", "counter", "Connections passed on to another worker.",
            "How often does another worker take over?"),
        Row("wsgi_listen_queue_depth", "gauge", "Connections waiting in the accept queues.",
            "Do connections wait to be accepted?"),
        Row("wsgi_listen_queue_limit", "gauge", "Room in the accept queues.", "How near is the accept queue to its limit?"),
        Row("wsgi_listen_overflows_total", "counter", "Connections refused because an accept queue was full (whole pod).",
            "Were connections refused?"),
        Row("wsgi_listen_drops_total", "counter", "Connections dropped before they were accepted (whole pod).",
            "Were connections lost?"),
    )),
    Section("Workers", (
        Row("wsgi_threads", "gauge", "App threads of the workers that serve.",
            "How much can be worked on at once? With gevent: the most calls at once."),
        Row("wsgi_threads_busy", "gauge", "App threads of the workers that serve which are in a call.",
            "How full is the pod? Utilisation is wsgi_threads_busy / wsgi_threads."),
        Row("wsgi_worker_threads_busy", "gauge", "App threads of a worker that are in a call.",
            "Is the load spread over the workers?", ("worker",)),
        Row("wsgi_worker_busy_seconds_total", "counter", "Time that app threads spent in calls, of all workers; probes included.",
            "How full was the pod on average? rate(wsgi_worker_busy_seconds_total[5m]) / wsgi_threads."),
        Row("wsgi_workers", "gauge", "Worker processes.", "Do all workers serve, and in which state are the others?", ("state",)),
        Row("wsgi_workers_desired", "gauge", "Workers wanted.", "How many workers should there be?"),
        Row("wsgi_workers_busy", "gauge", "Workers with a call running.", "How many workers have work?"),
        Row("wsgi_worker_exits_total", "counter", "Workers that ended.",
            "Why do workers end? `retired` (reloads, fewer workers) and `max_requests` are normal.", ("reason",)),
        Row("wsgi_worker_boot_duration_seconds", "summary", "Time from the order to fork a worker until it was ready.",
            "How long does a new worker take?"),
        Row("wsgi_crash_loop_backoff_seconds", "gauge", "Time until the next worker is forked, while workers crash in a row.",
            "Do workers crash as fast as they start?"),
        Row("wsgi_worker_resident_memory_bytes", "gauge", "Resident memory of a worker, shared pages included.",
            "How near are workers to max_worker_memory?", ("worker",)),
        Row("wsgi_worker_proportional_memory_bytes", "gauge", "Memory of a worker, shared pages divided among those who share them.",
            "What does each worker cost? The sum over all is what the pod uses.", ("worker",)),
        Row("wsgi_memory_working_set_bytes", "gauge",
            "Memory in use in the server's cgroup, file pages that can be taken back left out; where there is a limit.",
            "How near is the app's container to its limit? wsgi_memory_working_set_bytes / wsgi_memory_limit_bytes; at 1 the kernel kills processes."),
        Row("wsgi_memory_limit_bytes", "gauge", "Memory limit of the server's cgroup, or of the one around it that is nearer to its limit.",
            "How much memory may the app's container use?"),
        Row("wsgi_worker_request_elapsed_seconds", "gauge", "Age of a worker's oldest running call, 0 without one.",
            "Is a request stuck now?", ("worker",)),
    )),
    Section("Content, reloads, readiness", (
        Row("wsgi_content_info", "info", "Version of a content that is served: the first 16 digits of its digest.",
            "Do all pods serve the same content? count by (content) (count by (content, digest) (wsgi_content_info)) is 1.",
            ("content", "digest")),
        Row("wsgi_generation", "gauge", "Serving generation of this pod; each reload that succeeds adds one or more.",
            "When did this pod reload? Pods with the same content may have different numbers."),
        Row("wsgi_reloads_total", "counter", "Reloads that ended.", "Did a reload fail?", ("result",)),
        Row("wsgi_ready", "gauge", "1 where /readyz answers 200.", "Does the pod take requests?"),
        Row("wsgi_not_ready", "gauge", "1 for the reason why /readyz answers 503.", "Why does it not?", ("reason",)),
        Row("wsgi_build_info", "info", "Version of prefork.", "Which version serves where?", ("version",)),
    )),
)  # fmt: skip

ROWS = {row.name: row for section in SECTIONS for row in section.rows}
