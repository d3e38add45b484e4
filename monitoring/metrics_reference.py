"""Writes docs/metrics.md from the metrics that agent and operator declare: `python -m monitoring.metrics_reference`."""

import sys
from collections.abc import Iterator
from typing import get_args

from prefork.agent.metric_table import SECTIONS, Kind, Row
from prefork.agent.metrics import CONTENTS_SHOWN, REQUEST_SERIES, WORKERS_SHOWN
from prefork.agent.readiness import Reason
from prefork.base.stats import CODE_CLASSES, METHODS, ExitReason, WorkerState
from prefork.config.options import DURATION_BUCKETS
from wsgiapp_operator.metrics import Metrics

from monitoring.questions import QUESTIONS

# The client library names them as we do.
KINDS: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}
LABELS = {
    "method": ", ".join(METHODS),
    "code": "the status; of more than "
    f"{REQUEST_SERIES} pairs of method and code, and of unusual statuses, the class: 4xx",
    "code_class": ", ".join(CODE_CLASSES),
    "worker": f"number of the worker's slot, which its replacement inherits; of more than {WORKERS_SHOWN} workers those with the largest values",
    "state": ", ".join(state.name.lower() for state in WorkerState),
    "reason": "of `wsgi_worker_exits_total`: "
    + ", ".join(reason.value for reason in ExitReason)
    + "; of `wsgi_not_ready`: "
    + ", ".join(Reason),
    "result": "succeeded, failed",
    "content": f"`source`, or the name of an entry of `config`; {CONTENTS_SHOWN} at most",
    "digest": "the first 16 hexadecimal digits of the content's digest",
    "version": "of prefork",
}
OPERATOR_QUESTIONS = {
    "wsgiapp_operator_reconcile_duration_seconds": "Is the operator fast enough?",
    "wsgiapp_operator_reconciles_total": "Does it fail? `error` is retried.",
    "wsgiapp_operator_queue_depth": "Does it keep up?",
    "wsgiapp_operator_applies_total": "What does it change, and does it leave alone what is right?",
    "wsgiapp_operator_status_writes_total": "How much does it write?",
    "wsgiapp_operator_reloads_total": "Did a rolling reload fail?",
    "wsgiapp_operator_upgrade_apps": "How far is an upgrade, and is it stuck?",
    "wsgiapp_operator_leader": "Which replica acts? The sum over all is 1.",
    "wsgiapp_info": "Which apps are there, with which image?",
    "wsgiapp_ready": "Is each app what its manifest declares?",
    "wsgiapp_status_condition": 'Why not? `wsgiapp_status_condition{status="False",type!="Stalled"}`.',
}

HEAD = """\
# Metrics

Written from `server/src/prefork/agent/metric_table.py` and `operator/controller/src/wsgiapp_operator/metrics.py` by `make generate`; change it there.

Each pod's agent answers `/metrics` on port 9000, also while every worker is busy. It reads the table into which the workers count; no worker is asked.
`prefork --metrics HOST:PORT` does the same without a cluster. [Alerts](alerts.md) and recording rules are made of these metrics.

## A pod
"""

TAIL = """
## Labels

None of these is a label that Prometheus puts on a target (`namespace`, `pod`, `container`, `job`, `instance`, …), so none is renamed `exported_…`.
None comes from a client, other than the method and the status: no path, no host, no address, no process id. A pod has 300 series at most.

| label | values |
|---|---|
"""

END = """
## Buckets

All histograms of request times have the same bounds, in seconds: {bounds}. `spec.server.durationBucketsSeconds: [0.05, 0.1, 0.3]` of a WsgiApp, or
`--duration-buckets 0.05,0.1,0.3` (`PREFORK_DURATION_BUCKETS`), sets others, 16 at most. They hold until the server is started again, so a change of the field replaces
the pods. With 16 bounds and 64 workers a pod has 300 series at most.

Set a bound at each duration that you promise. With 0.3 among them the share of requests that took 300 ms at most is exact:
`sum(rate(wsgi_http_response_time_seconds_bucket{{le="0.3"}}[5m])) / sum(rate(wsgi_http_response_time_seconds_count[5m]))`. No rule, alert or dashboard of this
project names a bound, so each works with any. Quantiles are estimates within a bucket and never above the highest bound; the alert about waiting requests looks at
the mean too. While pods with old and new bounds run side by side, quantiles over both are wrong, those of one pod are right.

## What the numbers mean

- **Counters do not go back** when a worker ends, at a reload, when the agent is started again, and when the server is started again in the same pod (run
  directory). With other buckets, or another version of the table, a new server begins at 0.
- **What a client waits** is `wsgi_http_response_time_seconds`: it begins when the request is complete, body included where the server keeps it, and ends
  when the app's response has been sent or is held by the server. The time in the accept queue, in the proxy and on the network comes on top; the
  time that a slow client takes to read does not. It is the sum of `wsgi_http_request_queue_duration_seconds` and
  `wsgi_http_request_duration_seconds`. What the server answers by itself (400, 408, 413, …) has no times.
- **Probes are no traffic.** What the agent asks of the app for `/readyz` is in `wsgi_probe_requests_total`, in the time that threads are busy, and in the
  metrics of connections and sent bytes; in no other metric. The kubelet asks the agent, not the app.
- **Queues.** A connection waits in the accept queue (`wsgi_listen_queue_depth`) while no worker has a free thread. A request on a connection that is open already, as those of a
  proxy are, waits in its worker (`wsgi_http_requests_waiting`) until a thread here or in another worker is free.

## Let Prometheus find them

Choose one of these: two would count every request twice.

| your Prometheus | switch | job of the pods |
|---|---|---|
| of the Prometheus Operator | the chart's `metrics.podMonitor.enabled` | all apps' pods, by their label `wsgi.dev/app` |
| of the Prometheus Operator, and looks at ServiceMonitors alone | the chart's `metrics.serviceMonitor.enabled` | all apps' pods, by a headless Service in each namespace |
| follows annotations | nothing: pods have `prometheus.io/scrape` and `prometheus.io/port` | by your scrape configuration, such as [that of the tests](../tests/cluster/manifests/prometheus.yaml) |

- `metrics.podMonitor.labels` or `metrics.serviceMonitor.labels` are those by which your Prometheus selects monitors. Each makes a second monitor for the operator.
- Monitors give the apps' series the label `wsgiapp`, the app's name. With annotations, add it:
  `{{source_labels: [__meta_kubernetes_pod_label_wsgi_dev_app], target_label: wsgiapp}}`. Rules, alerts and dashboards do without; they need `namespace` and `pod`.
- The headless Service selects the pods of all apps of its namespace, those that are not ready too. The chart makes it in `watchNamespaces`; where the operator serves all namespaces,
  apply it in each that has apps:

```yaml
apiVersion: v1
kind: Service
metadata:
  name: wsgiapp-operator-apps-metrics
  labels: {{wsgi.dev/metrics: apps}}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: {{app.kubernetes.io/managed-by: wsgiapp-operator}}
  ports: [{{name: metrics, port: 9000}}]
```

The app's own Service has no port for metrics: it may be a LoadBalancer, and metrics are not for everyone.

## Costs

A scrape of a pod with 64 workers has 300 series at most and takes less than 5 ms of CPU (2.4 ms as text, 3.7 ms as OpenMetrics, 4.9 ms with an exemplar in each bucket; CPython 3.13).
Counting takes about 35 of a request's 10,000 instructions, exemplars about 1,500 more where they are on.

## Formats

The agent speaks Prometheus' text format, and OpenMetrics 1.0 where the scrape asks for it, as Prometheus does.

### Exemplars

`spec.server.exemplars: true` of a WsgiApp, or `--exemplars`, keeps for each bucket of the three histograms the trace id of its newest request, with the request's time and when
it ended. The app's [dashboard](dashboards.md) draws them as points in “How long do clients wait?”; a click leads to the trace of a
request that was that slow. It takes

- requests with a header `traceparent` (W3C Trace Context) whose flags say that the trace is sampled: others are in no tracing backend;
- Prometheus with `--enable-feature=exemplar-storage` (with the Prometheus Operator: `enableFeatures: [exemplar-storage]`), which scrapes OpenMetrics by default;
- in Grafana, an internal link of the data source from the exemplars' label `trace_id` to the tracing data source.

Only the OpenMetrics format has exemplars; the text format is the same with and without. They add no series. A trace id comes from the client, as the rest of `traceparent` does:
take that header from outside only where the ingress makes or checks it.

### Native histograms

Prometheus makes native histograms of these by itself: with `convert_classic_histograms_to_nhcb: true` in the scrape configuration (`convertClassicHistogramsToNHCB` of a
PodMonitor, the chart's `metrics.podMonitor.nativeHistograms`) each histogram becomes one series with custom buckets, those above. Keep the classic series too
(`always_scrape_classic_histograms: true`, which the chart sets with it): this project's rules and dashboards read them.
`histogram_quantile(0.95, sum by (namespace, wsgiapp) (rate(wsgi_http_response_time_seconds[5m])))` is then the 95th percentile. Exemplars are then at the native series
(`wsgi_http_response_time_seconds`), no longer at those of the buckets.

The agent itself writes no native histograms: that takes Prometheus' protobuf format, which its client library does not have, or OpenMetrics 2.0, which is a draft
([prometheus/client_python#918](https://github.com/prometheus/client_python/issues/918)).
"""


QUESTIONS_HEAD = """
## Ten questions of on-call

Each of these queries is run on a real Prometheus by a test, on data of an app under load whose workers are killed and whose reload fails.

"""


def questions() -> Iterator[str]:
    """Yield the text of each question: what is asked, the query, what to know of the answer."""
    for number, question in enumerate(QUESTIONS, 1):
        yield f"{number}. **{question.text}** {question.note}".rstrip() + "\n\n"
        yield f"    ```promql\n    {question.query}\n    ```\n\n"


def render() -> str:
    """Return the whole page; pure."""
    parts = [HEAD, *(f"\n### {part.title}\n\n" + table(part.rows) for part in SECTIONS)]
    parts.append("\n## The operator\n\nOn port 8080 (`http`) of the operator's pod.\n\n")
    parts.append(table(operator_rows()))
    parts += [QUESTIONS_HEAD, *questions()]
    parts[-1] = parts[-1].rstrip("\n") + "\n"
    parts.append(TAIL)
    parts += [f"| `{name}` | {values} |\n" for name, values in LABELS.items()]
    parts.append(END.format(bounds=", ".join(f"{bound:g}" for bound in DURATION_BUCKETS)))
    return "".join(parts)


def table(rows: tuple[Row, ...] | Iterator[Row]) -> str:
    lines = ["| metric | labels | what it is | question |", "|---|---|---|---|"]
    for row in rows:
        labels = ", ".join(f"`{label}`" for label in row.labels)
        lines.append(f"| `{row.name}` ({row.kind}) | {labels} | {row.help} | {row.question} |")
    return "\n".join(lines) + "\n"


def operator_rows() -> Iterator[Row]:
    """Yield the operator's metrics as they declare themselves, with the question of each."""
    metrics = Metrics()
    metrics.record_app("n", "a", "i", [{"type": "Ready", "status": "True", "reason": "Serving"}])
    metrics.upgrades.labels(state="waiting").set(0)
    metrics.applies.labels(kind="Service", changed="true")
    for family in metrics.registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        yield Row(
            name,
            KINDS[family.type],
            family.documentation,
            OPERATOR_QUESTIONS[name],
            tuple(sorted(labels)),
        )


if __name__ == "__main__":
    sys.stdout.write(render())
