"""The dashboard of the operator: does it keep up, what does it change, who leads?"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import units

from monitoring.dashboards import board, panels
from monitoring.dashboards.panels import Query, figure, lines, spread, states
from monitoring.dashboards.queries import OPERATOR, growth, quantile, rate

TOOK = "wsgiapp_operator_reconcile_duration_seconds"
LEADER = f"wsgiapp_operator_leader{{{OPERATOR}}}"
UPGRADE_COLOURS = {"waiting": panels.GREY, "under_way": panels.BLUE, "stuck": panels.RED}


def build() -> builders.Dashboard:
    """Return the dashboard `WsgiApp / operator`."""
    made = board.start(
        "wsgiapp-operator",
        "WsgiApp / operator",
        "The operator: does it keep up, what does it change, who leads?",
    )
    made = board.add_scope(made, namespaces=board.OPERATOR_NAMESPACES)
    made = board.add_row(made, "How is the operator now?", _now())
    made = board.add_row(made, "Does it keep up?", _work())
    return board.add_row(made, "What does it change?", _changes())


def _now() -> list[panels.Panel]:
    return [
        figure(
            "Does one replica lead?",
            "Replicas that hold the Lease. Without one, changes have no effect; apps go on serving.",
            f"sum({LEADER})",
            unit=units.NoUnit,
            base=panels.RED,
            texts={0: ("none leads", panels.RED), 1: ("yes", panels.GREEN)},
        ),
        figure(
            "How many apps are there?",
            "WsgiApps that the leader knows.",
            f"sum(count by (pod) (wsgiapp_info{{{OPERATOR}}})) or vector(0)",
            unit=units.Short,
            base=panels.BLUE,
        ),
        figure(
            "How many are not ready?",
            "WsgiApps whose condition Ready is not True.",
            f"count(wsgiapp_ready{{{OPERATOR}}} == 0) or vector(0)",
            unit=units.Short,
            steps={1: panels.ORANGE},
        ),
        figure(
            "How many are in the queue?",
            "Apps that are due or being handled. It returns to 0 after each burst.",
            f"sum(wsgiapp_operator_queue_depth{{{OPERATOR}}})",
            unit=units.Short,
            steps={100: panels.ORANGE},
        ),
        figure(
            "Does it fail?",
            "Reconciles that ended with an error in the last 10 minutes. They are tried again.",
            f'sum(increase(wsgiapp_operator_reconciles_total{{{OPERATOR}, result="error"}}[10m]))',
            unit=units.Short,
            steps={1: panels.RED},
            decimals=0,
        ),
        figure(
            "Is an upgrade stuck?",
            "Apps whose pods a new version of the operator changes and that do not become ready.",
            f'sum(wsgiapp_operator_upgrade_apps{{{OPERATOR}, state="stuck"}}) or vector(0)',
            unit=units.Short,
            steps={1: panels.RED},
        ),
    ]


def _work() -> list[panels.Panel]:
    return [
        lines(
            "How long does a step take?",
            "Time to bring one app a step further: look, compare, apply.",
            *(
                Query(quantile(share, TOOK, OPERATOR), name)
                for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
            ),
            unit=units.Seconds,
            colours=panels.QUANTILE_COLOURS,
        ),
        spread(
            "How are step times distributed?",
            "Steps per second by the time they took.",
            f"sum by (le) ({rate(f'{TOOK}_bucket', OPERATOR)})",
        ),
        lines(
            "How do steps end?",
            "Reconciles per second by result: retry waits for something, error is a fault and is tried again.",
            Query(
                f"sum by (result) ({rate('wsgiapp_operator_reconciles_total', OPERATOR)})",
                "{{result}}",
            ),
            unit=units.OpsPerSecond,
            colours={**panels.RESULT_COLOURS, "gone": panels.GREY},
            stacked=True,
        ),
        lines(
            "Does the queue drain?",
            "Apps that are due or being handled.",
            Query(f"sum by (pod) (wsgiapp_operator_queue_depth{{{OPERATOR}}})", "{{pod}}"),
            unit=units.Short,
        ),
    ]


def _changes() -> list[panels.Panel]:
    return [
        lines(
            "What is written?",
            "Objects applied or pruned per second, by kind, and statuses. Objects that are as wanted are not written.",
            Query(
                f"""sum by (kind) ({rate("wsgiapp_operator_applies_total", OPERATOR, 'changed!="false"')})""",
                "{{kind}}",
            ),
            Query(f"sum({rate('wsgiapp_operator_status_writes_total', OPERATOR)})", "status"),
            unit=units.WritesPerSecond,
            stacked=True,
            width=16,
        ),
        lines(
            "How do rolling reloads end?",
            "Rolling reloads of apps by result. After a failed one, the old content is still served.",
            Query(
                f"sum by (result) ({growth('wsgiapp_operator_reloads_total', OPERATOR)})",
                "{{result}}",
            ),
            unit=units.Short,
            colours=panels.RESULT_COLOURS,
            bars=True,
            stacked=True,
            width=8,
        ),
        states(
            "Who leads?",
            "The replica that holds the Lease, over time.",
            Query(f"max by (pod) ({LEADER})", "{{pod}}"),
            texts={0: ("stands by", panels.GREY), 1: ("leads", panels.GREEN)},
            width=8,
        ),
        lines(
            "What condition are the apps in?",
            "WsgiApps by the condition Ready and its reason.",
            Query(
                f'count by (status, reason) (wsgiapp_status_condition{{{OPERATOR}, type="Ready"}})',
                "Ready {{status}}: {{reason}}",
            ),
            unit=units.Short,
            width=16,
        ),
    ]
