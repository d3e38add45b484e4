"""When each alert fires and when it does not: series as Prometheus' unit tests write them, one value a minute.

`5x60` is 5 and 60 times more the same, `0+3x60` rises by 3 each minute, `_x9` is nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

TARGET = 'job="pods",instance="10.0.0.1:9000",namespace="web",pod="shop-7d9c5b8f6d-x2k4z"'
OPERATOR = (
    'job="pods",instance="10.0.0.9:8080",namespace="wsgiapp-system",pod="op-6f7d8c9b5d-zzz42"'
)
APP = {"namespace": "web", "wsgiapp": "shop"}
POD = {"namespace": "web", "pod": "shop-7d9c5b8f6d-x2k4z"}
ONE = {**POD, "job": "pods", "instance": "10.0.0.1:9000"}
SYSTEM = {"namespace": "wsgiapp-system"}


def pod(name: str, values: str, labels: str = "") -> tuple[str, str]:
    return f"{name}{{{','.join(filter(None, (TARGET, labels)))}}}", values


def operator(name: str, values: str, labels: str = "") -> tuple[str, str]:
    return f"{name}{{{','.join(filter(None, (OPERATOR, labels)))}}}", values


def answers(good: str, bad: str) -> tuple[tuple[str, str], ...]:
    return (
        pod("wsgi_http_requests_total", good, 'method="GET",code="200"'),
        pod("wsgi_http_requests_total", bad, 'method="GET",code="500"'),
    )


def waits(up_to_a_quarter: str, up_to_2_5: str) -> tuple[tuple[str, str], ...]:
    """Requests that waited 0.25 s at most, and those that waited 2.5 s at most."""
    name = "wsgi_http_request_queue_duration_seconds_bucket"
    return (
        pod(name, up_to_a_quarter, 'le="0.25"'),
        pod(name, up_to_2_5, 'le="2.5"'),
        pod(name, up_to_2_5, 'le="+Inf"'),
    )


def waits_with_low_bounds(sum_s: str) -> tuple[tuple[str, str], ...]:
    """100 requests a minute, all of which waited longer than the highest bound, 0.1 s."""
    name = "wsgi_http_request_queue_duration_seconds"
    return (
        pod(f"{name}_bucket", "0x30", 'le="0.1"'),
        pod(f"{name}_bucket", "0+100x30", 'le="+Inf"'),
        pod(f"{name}_count", "0+100x30"),
        pod(f"{name}_sum", sum_s),
    )


def memory(used: str, limit: str) -> tuple[tuple[str, str], ...]:
    return pod("wsgi_memory_working_set_bytes", used), pod("wsgi_memory_limit_bytes", limit)


def contents(first: str, second: str, until: str = "x30") -> tuple[tuple[str, str], ...]:
    """Two pods of one app, and the version of its code that each serves."""
    other = TARGET.replace("x2k4z", "b7n9q").replace("10.0.0.1", "10.0.0.2")
    return (
        pod("wsgi_content_info", f"1{until}", f'content="source",digest="{first}"'),
        (f'wsgi_content_info{{{other},content="source",digest="{second}"}}', f"1{until}"),
    )


def condition(kind: str, reason: str, values: str) -> tuple[str, str]:
    status = "True" if reason == "RollingOut" else "False"
    labels = f'{READY},type="{kind}",status="{status}",reason="{reason}"'
    return operator("wsgiapp_status_condition", values, labels)


@dataclass(frozen=True)
class Case:
    alert: str
    why: str
    series: tuple[tuple[str, str], ...]
    at: str
    fires: dict[str, str] | None


def fires(alert: str, why: str, *series: tuple[str, str], at: str, labels: dict[str, str]) -> Case:
    return Case(alert, why, series, at, labels)


def quiet(alert: str, why: str, *series: tuple[str, str], at: str) -> Case:
    return Case(alert, why, series, at, None)


READY = 'wsgiapp_namespace="web",wsgiapp="shop"'
CASES = (
    # Both windows of a pair must burn: the short one ends the alert soon after the trouble.
    fires("WsgiErrorBudgetBurnsFast", "2 of 100 fail", *answers("0+98x30", "0+2x30"), at="10m", labels=APP),
    fires("WsgiErrorBudgetBurnsFast", "7 in 1,000 fail for long", *answers("0+993x400", "0+7x400"), at="6h30m", labels=APP),
    quiet("WsgiErrorBudgetBurnsFast", "not before its 2 minutes", *answers("0+98x30", "0+2x30"), at="2m"),
    quiet("WsgiErrorBudgetBurnsFast", "4 in 1,000 burn slowly", *answers("0+996x90", "0+4x90"), at="1h"),
    quiet("WsgiErrorBudgetBurnsFast", "the trouble is over", *answers("0+98x90", "0+2x20 40x70"), at="1h10m"),
    quiet("WsgiErrorBudgetBurnsFast", "4xx are the client's", pod("wsgi_http_requests_total", "0+9x30", 'code="404"'), at="10m"),
    fires("WsgiErrorBudgetBurnsSlowly", "4 in 1,000 fail", *answers("0+996x90", "0+4x90"), at="1h", labels=APP),
    quiet("WsgiErrorBudgetBurnsSlowly", "5 in 10,000 fail", *answers("0+9995x90", "0+5x90"), at="1h"),
    # Load.
    fires("WsgiSaturated", "half of the requests wait 2.5 s", *waits("0+50x30", "0+100x30"), at="15m", labels=POD),
    fires("WsgiSaturated", "all wait 2 s, and the highest bound is 0.1 s", *waits_with_low_bounds("0+200x30"), at="15m", labels=POD),
    quiet("WsgiSaturated", "all wait 0.2 s, and the highest bound is 0.1 s", *waits_with_low_bounds("0+20x30"), at="15m"),
    quiet("WsgiSaturated", "2 in 100 wait", *waits("0+98x30", "0+100x30"), at="15m"),
    quiet("WsgiSaturated", "a burst", *waits("0+50x30", "0+100x30"), at="4m"),
    fires("WsgiAcceptQueueNearLimit", "1,700 of 2,048", pod("wsgi_listen_queue_depth", "1700x9"), pod("wsgi_listen_queue_limit", "2048x9"), at="2m", labels=ONE),
    quiet("WsgiAcceptQueueNearLimit", "1,600 of 2,048", pod("wsgi_listen_queue_depth", "1600x9"), pod("wsgi_listen_queue_limit", "2048x9"), at="5m"),
    quiet("WsgiAcceptQueueNearLimit", "a server that ends has no queue", pod("wsgi_listen_queue_depth", "0x9"), pod("wsgi_listen_queue_limit", "0x9"), at="5m"),
    fires("WsgiAcceptQueueOverflow", "some are refused", pod("wsgi_listen_overflows_total", "0x5 3x9"), at="7m", labels=ONE),
    quiet("WsgiAcceptQueueOverflow", "they were refused long ago", pod("wsgi_listen_overflows_total", "0x5 3x30"), at="12m"),
    fires("WsgiRequestStuck", "a call of 2 minutes", pod("wsgi_worker_request_elapsed_seconds", "0+60x9", 'worker="0"'), at="4m", labels=ONE),
    fires("WsgiRequestStuck", "a worker that does not react", pod("wsgi_workers", "1x9", 'state="stuck"'), at="2m", labels=ONE),
    quiet("WsgiRequestStuck", "calls of less than a minute", pod("wsgi_worker_request_elapsed_seconds", "55x9", 'worker="0"'), pod("wsgi_workers", "0x9", 'state="stuck"'), pod("wsgi_workers", "4x9", 'state="serving"'), at="5m"),
    fires("WsgiRequestTimeouts", "one a minute", pod("wsgi_request_timeouts_total", "0+1x20"), at="10m", labels=ONE),
    quiet("WsgiRequestTimeouts", "a single one", pod("wsgi_request_timeouts_total", "0x5 1x20"), at="10m"),
    # Workers.
    fires("WsgiWorkersCrashLoop", "one a minute is killed", pod("wsgi_worker_exits_total", "0+1x20", 'reason="killed"'), at="10m", labels=ONE),
    fires("WsgiWorkersCrashLoop", "the server pauses between forks", pod("wsgi_crash_loop_backoff_seconds", "0x2 12 0 20 9 0 25 30x9"), at="6m", labels=ONE),
    quiet("WsgiWorkersCrashLoop", "a single crash", pod("wsgi_worker_exits_total", "0x2 1x20", 'reason="crash"'), pod("wsgi_crash_loop_backoff_seconds", "0x22"), at="10m"),
    quiet("WsgiWorkersCrashLoop", "reloads retire workers", pod("wsgi_worker_exits_total", "0+8x20", 'reason="retired"'), at="10m"),
    fires("WsgiWorkersOverMemory", "one every 10 minutes", pod("wsgi_worker_exits_total", "0x9 1x9 2x9 3x9 4x9 5x9 6x9", 'reason="memory"'), at="1h", labels={**ONE, "reason": "memory"}),
    quiet("WsgiWorkersOverMemory", "one an hour", pod("wsgi_worker_exits_total", "0x9 1x99", 'reason="memory"'), at="1h"),
    fires("WsgiMemoryNearLimit", "92 % for more than 5 minutes", *memory("460x30", "500x30"), at="7m", labels=ONE),
    quiet("WsgiMemoryNearLimit", "90 %", *memory("450x30", "500x30"), at="20m"),
    quiet("WsgiMemoryNearLimit", "4 minutes of a reload", *memory("300x5 490x4 300x20", "500x30"), at="10m"),
    quiet("WsgiMemoryNearLimit", "the limit was raised", *memory("460x30", "500x4 1000x25"), at="20m"),
    quiet("WsgiMemoryNearLimit", "no limit, so no metrics", pod("wsgi_worker_proportional_memory_bytes", "9e9x30", 'worker="1"'), at="20m"),
    fires("WsgiReloadFailed", "a reload fails", pod("wsgi_reloads_total", "0x5 1x30", 'result="failed"'), at="7m", labels={**ONE, "result": "failed"}),
    quiet("WsgiReloadFailed", "reloads succeed", pod("wsgi_reloads_total", "0+1x30", 'result="succeeded"'), pod("wsgi_reloads_total", "0x30", 'result="failed"'), at="7m"),
    fires("WsgiContentSkew", "two versions of the code", *contents("aa", "bb"), at="16m", labels={**APP, "content": "source"}),
    quiet("WsgiContentSkew", "all pods have the same", *contents("aa", "aa"), at="20m"),
    quiet("WsgiContentSkew", "a rolling reload of 10 minutes", *contents("aa", "bb", until="x10"), at="20m"),
    # Scrapes.
    fires("WsgiAgentDown", "it answered before", pod("up", "1x5 0x30"), pod("wsgi_build_info", "1x5 _x30", 'version="1"'), at="10m", labels=ONE),
    quiet("WsgiAgentDown", "it answers", pod("up", "1x30"), pod("wsgi_build_info", "1x30", 'version="1"'), at="10m"),
    quiet("WsgiAgentDown", "another target is down", ('up{job="other",instance="db:1"}', "0x30"), at="10m"),
    fires("WsgiServerAbsent", "the agent alone answers", pod("wsgi_build_info", "1x30", 'version="1"'), at="6m", labels={**ONE, "version": "1"}),
    quiet("WsgiServerAbsent", "there are workers", pod("wsgi_build_info", "1x30", 'version="1"'), pod("wsgi_workers_desired", "4x30"), at="10m"),
    fires("WsgiAppNotScraped", "no target of it", operator("wsgiapp_ready", "1x30", READY), at="16m", labels=APP),
    quiet("WsgiAppNotScraped", "a pod of it is scraped", operator("wsgiapp_ready", "1x30", READY), pod("wsgi_build_info", "1x30", 'version="1"'), at="20m"),
    # The operator.
    fires("WsgiAppNotReady", "the condition is False", operator("wsgiapp_ready", "0x30", READY), at="16m", labels=APP),
    quiet("WsgiAppNotReady", "a rollout takes 10 minutes", operator("wsgiapp_ready", "1x2 0x9 1x30", READY), at="20m"),
    fires("WsgiAppRolloutStuck", "the deadline has passed", condition("Progressing", "ProgressDeadlineExceeded", "_x4 1x20"), at="7m", labels=APP),
    quiet("WsgiAppRolloutStuck", "it is on its way", condition("Progressing", "RollingOut", "1x30"), at="20m"),
    quiet("WsgiAppRolloutStuck", "another condition is False", condition("Ready", "ReloadFailed", "1x30"), at="20m"),
    fires("WsgiAppUpgradeStuck", "one is stuck", operator("wsgiapp_operator_upgrade_apps", "1x30", 'state="stuck"'), at="6m", labels=SYSTEM),
    quiet("WsgiAppUpgradeStuck", "others wait for their turn", operator("wsgiapp_operator_upgrade_apps", "7x30", 'state="waiting"'), operator("wsgiapp_operator_upgrade_apps", "0x30", 'state="stuck"'), at="10m"),
    fires("WsgiAppOperatorErrors", "one a minute", operator("wsgiapp_operator_reconciles_total", "0+1x60", 'result="error"'), at="15m", labels=SYSTEM),
    quiet("WsgiAppOperatorErrors", "it waits for something", operator("wsgiapp_operator_reconciles_total", "0+1x60", 'result="retry"'), at="15m"),
    fires("WsgiAppOperatorNoLeader", "all stand by", operator("wsgiapp_operator_leader", "0x9"), at="3m", labels=SYSTEM),
    quiet("WsgiAppOperatorNoLeader", "one of two leads", operator("wsgiapp_operator_leader", "0x9"), ('wsgiapp_operator_leader{namespace="wsgiapp-system",pod="other"}', "1x9"), at="5m"),
    fires("WsgiAppOperatorAbsent", "it was there", operator("wsgiapp_operator_leader", "1x5 _x30"), at="16m", labels=SYSTEM),
    quiet("WsgiAppOperatorAbsent", "its successor is scraped", operator("wsgiapp_operator_leader", "1x5 _x30"), ('wsgiapp_operator_leader{namespace="wsgiapp-system",pod="other"}', "1x40"), at="16m"),
    quiet("WsgiAppOperatorAbsent", "prefork is used without it", pod("wsgi_workers_desired", "4x30"), at="16m"),
)  # fmt: skip
