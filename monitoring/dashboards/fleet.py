"""The dashboard of all apps: which one needs a look."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import units

from monitoring.dashboards import board, panels
from monitoring.dashboards.panels import Column, Query, figure, grid, lines, states
from monitoring.dashboards.queries import (
    ALL_APPS,
    growth,
    max_by_app,
    quantile_by_app,
    rate,
    state_by,
    sum_by_app,
    with_app,
)

APP = "{{namespace}}/{{wsgiapp}}"
RESPONSE = "wsgi_http_response_time_seconds"
REQUESTS = sum_by_app(rate("wsgi_http_requests_total", ALL_APPS))
FAILED = sum_by_app(rate("wsgi_http_requests_total", ALL_APPS, 'code=~"5.."'))
# 0 and not nothing for an app whose requests have all succeeded so far.
FAILED_PART = f"({FAILED} or 0 * {REQUESTS}) / ({REQUESTS} > 0)"
BUSY = sum_by_app(f"wsgi_threads_busy{{{ALL_APPS}}}")
THREADS = sum_by_app(f"wsgi_threads{{{ALL_APPS}}}")
WAITING = sum_by_app(f"wsgi_http_requests_waiting{{{ALL_APPS}}}")
PODS = f"count by (namespace, wsgiapp) ({with_app(f'wsgi_build_info{{{ALL_APPS}}}')})"
READY = sum_by_app(f"wsgi_ready{{{ALL_APPS}}}")
STATE = state_by("namespace, wsgiapp", ALL_APPS, app=True)
APP_LINK = (
    "/d/wsgiapp-app?var-datasource=${datasource}&var-namespace=${__data.fields.Namespace}"
    "&var-app=${__data.fields.App}&${__url_time_range}"
)


def build() -> builders.Dashboard:
    """Return the dashboard `WsgiApp / fleet`."""
    made = board.start(
        "wsgiapp-fleet", "WsgiApp / fleet", "All apps at a glance: which one needs a look?"
    )
    made = board.add_scope(made)
    made = board.annotate_reloads(made, ALL_APPS)
    made = board.add_row(made, "How are all apps now?", _now())
    made = board.add_row(made, "Which app needs a look?", [_table()])
    return board.add_row(made, "What has changed?", _over_time())


def _now() -> list[panels.Panel]:
    return [
        figure(
            "How many apps serve?",
            "Apps with at least one pod that is ready.",
            f"count({READY} > 0)",
            unit=units.Short,
            base=panels.RED,
            steps={1: panels.GREEN},
        ),
        figure(
            "How many are degraded?",
            "Apps with a pod that is not ready.",
            f"count({READY} < {PODS}) or vector(0)",
            unit=units.Short,
            steps={1: panels.ORANGE},
        ),
        figure(
            "How many requests/s?",
            "Requests answered per second by all apps, probes left out.",
            f"sum({rate('wsgi_http_requests_total', ALL_APPS)})",
            unit=units.RequestsPerSecond,
            base=panels.BLUE,
        ),
        figure(
            "What share fails?",
            "Share of all requests answered with 5xx.",
            f"(sum({FAILED}) or vector(0)) / sum({REQUESTS})",
            unit=units.PercentUnit,
            steps={0.001: panels.ORANGE, 0.01: panels.RED},
            decimals=2,
        ),
        figure(
            "How busy is the busiest?",
            "Share of the app threads that are in a call, of the app where it is largest.",
            f"max({BUSY} / ({THREADS} > 0))",
            unit=units.PercentUnit,
            steps={0.7: panels.ORANGE, 0.9: panels.RED},
        ),
        figure(
            "Did reloads fail?",
            "Reloads that failed in the last hour, counted in each pod. The old content is still served.",
            f'sum(increase(wsgi_reloads_total{{{ALL_APPS}, result="failed"}}[1h]))',
            unit=units.Short,
            steps={1: panels.RED},
            decimals=0,
        ),
    ]


def _table() -> panels.Panel:
    return grid(
        "How is each app?",
        "One row for each app; its name leads to the app's own dashboard.",
        {"namespace": "Namespace", "wsgiapp": "App"},
        [
            Column("State", STATE, units.NoUnit, texts=panels.STATES),
            Column("Pods ready", f"{READY} / {PODS}", units.PercentUnit, {0: panels.RED, 1: panels.GREEN}),
            Column("Requests/s", REQUESTS, units.RequestsPerSecond),
            Column("Failed", FAILED_PART, units.PercentUnit, {0.001: panels.ORANGE, 0.01: panels.RED}),
            Column("Clients wait (p95)", quantile_by_app(0.95, RESPONSE, ALL_APPS), units.Seconds),
            Column("Threads busy", f"{BUSY} / ({THREADS} > 0)", units.PercentUnit, {0.7: panels.ORANGE, 0.9: panels.RED}),
            Column("Waiting", WAITING, units.Short, {1: panels.ORANGE}),
        ],
        link=APP_LINK,
    )  # fmt: skip


def _over_time() -> list[panels.Panel]:
    return [
        lines(
            "How much traffic does each app get?",
            "Requests answered per second by each app.",
            Query(REQUESTS, APP),
            unit=units.RequestsPerSecond,
            stacked=True,
        ),
        lines(
            "Which app fails?",
            "Share of each app's requests answered with 5xx; the dashed line is 1 %.",
            Query(FAILED_PART, APP),
            unit=units.PercentUnit,
            limit=0.01,
        ),
        lines(
            "Which app is slow?",
            "Time to the end of the answer that 95 of 100 requests do not exceed, waiting included.",
            Query(quantile_by_app(0.95, RESPONSE, ALL_APPS), APP),
            unit=units.Seconds,
        ),
        lines(
            "Which app is saturated?",
            "Share of each app's threads that are in a call. Above the dashed line requests begin to wait.",
            Query(f"{BUSY} / ({THREADS} > 0)", APP),
            unit=units.PercentUnit,
            limit=0.9,
            top=1,
        ),
        states(
            "Which app reloads?",
            "The state of each app's worst pod: not ready, serving, replacing workers, or a reload that failed.",
            Query(STATE, APP),
            texts=panels.STATES,
        ),
        lines(
            "Which app loses workers?",
            "Workers that crashed, were killed, hung or grew too large; planned ends are left out.",
            Query(
                sum_by_app(
                    growth(
                        "wsgi_worker_exits_total",
                        ALL_APPS,
                        'reason=~"crash|killed|timeout|memory"',
                    )
                ),
                APP,
            ),
            unit=units.Short,
            bars=True,
        ),
        lines(
            "Where do requests wait?",
            "Complete requests that wait in a worker for a free thread.",
            Query(WAITING, APP),
            unit=units.Short,
        ),
        lines(
            "How full are accept queues?",
            "Connections that wait to be accepted, of the room there is, in each app's fullest pod.",
            Query(
                max_by_app(
                    f"(wsgi_listen_queue_depth{{{ALL_APPS}}} / (wsgi_listen_queue_limit{{{ALL_APPS}}} > 0))"
                ),
                APP,
            ),
            unit=units.PercentUnit,
            limit=0.8,
            top=1,
        ),
    ]
