"""What on-call asks of the metrics, and the query that answers it: on the page, and run on a real Prometheus.

The label `wsgiapp` is that of the chart's PodMonitors or ServiceMonitors, `namespace` and `pod` those of any scrape.
"""

from typing import NamedTuple


class Question(NamedTuple):
    """A question, its query, and what to know of the answer."""

    text: str
    query: str
    note: str


QUESTIONS = (
    Question(
        "Which share of requests fails?",
        'sum by (namespace, wsgiapp) (rate(wsgi_http_requests_total{code=~"5.."}[5m]))'
        " / sum by (namespace, wsgiapp) (rate(wsgi_http_requests_total[5m]))",
        "Nothing for an app that has answered no 5xx so far.",
    ),
    Question(
        "How long do clients wait (95th percentile)?",
        "histogram_quantile(0.95, sum by (namespace, wsgiapp, le) (rate(wsgi_http_response_time_seconds_bucket[5m])))",
        "From the complete request to the end of the answer. `wsgi_http_request_duration_seconds` is the app's part.",
    ),
    Question(
        "How full are the threads?",
        "sum by (namespace, wsgiapp) (wsgi_threads_busy) / sum by (namespace, wsgiapp) (wsgi_threads)",
        "Now. On average: `rate(wsgi_worker_busy_seconds_total[5m])` in the place of `wsgi_threads_busy`.",
    ),
    Question(
        "How long do requests wait for a thread (95th percentile)?",
        "histogram_quantile(0.95, sum by (namespace, wsgiapp, le) (rate(wsgi_http_request_queue_duration_seconds_bucket[5m])))",
        "",
    ),
    Question(
        "Does work pile up?",
        "sum by (namespace, wsgiapp) (wsgi_http_requests_waiting) + sum by (namespace, wsgiapp) (wsgi_listen_queue_depth)",
        "Requests in the workers, and connections in the accept queue. How near the accept queue is to its limit: "
        "`max by (namespace, pod) (wsgi_listen_queue_depth / wsgi_listen_queue_limit)`.",
    ),
    Question(
        "Why were workers replaced?",
        "sum by (namespace, wsgiapp, reason) "
        '(increase(wsgi_worker_exits_total{reason!~"retired|max_requests"}[1h])) > 0',
        "`retired` (reloads, fewer workers) and `max_requests` are normal.",
    ),
    Question(
        "How much memory does each worker take?",
        "max by (namespace, pod, worker) (wsgi_worker_proportional_memory_bytes)",
        "Shared pages are divided among those who share them.",
    ),
    Question(
        "Did a reload fail?",
        'sum by (namespace, wsgiapp) (increase(wsgi_reloads_total{result="failed"}[15m])) > 0',
        'Whether it is broken now: `wsgiapp_status_condition{type="Reloaded",status="False"}`, of the operator.',
    ),
    Question(
        "Do all pods serve the same content?",
        "count by (namespace, wsgiapp, content) (count by (namespace, wsgiapp, content, digest) (wsgi_content_info))",
        "1 where they do.",
    ),
    Question(
        "How many requests are being worked on?",
        "sum by (namespace, wsgiapp) (wsgi_http_requests_in_flight)",
        "Which worker has an old one: `wsgi_worker_request_elapsed_seconds > 5`.",
    ),
)
