"""Each alert fires on the real cluster when its condition is caused, within the time that its runbook names.

Time passes 20 times as fast for the rules (tests/e2e/alerting.py; RULES_FASTER=1 for their real speed); what the
server itself takes does not.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Cluster
from tests.e2e import steady_app
from tests.e2e.alerting import FASTER, RulesPrometheus
from tests.e2e.hung import find_agent, hung, needs_local_cluster
from tests.e2e.test_memory import used_mib
from tests.support.background_load import BackgroundLoad
from tests.support.kube import Kube
from tests.support.operator_release import NAMESPACE as OPERATOR_NAMESPACE
from tests.support.operator_release import RELEASE, ROOT, OperatorRelease
from tests.support.wait import NotYetError, wait_until
from tests.support.wsgi_app import WsgiApp

pytestmark = [needs_local_cluster, pytest.mark.full, pytest.mark.alone]
SOURCE = Path(__file__).with_name("apps") / "alerting.py"
FIGURES = ROOT / "build" / "e2e" / f"alerts-{FASTER}x.json"
LEASE, LEASES = "wsgiapp-operator", "kube-system"
# What is not the rules' time: a scrape, an evaluation, the kubelet, the test's own look; on a busy machine.
SLACK_S = 25.0
SCRAPED_S = 60.0
SMALL = {
    "replicas": 1,
    "healthCheck": {"path": "/", "startupTimeoutSeconds": 10},
    "rollout": {"minReadySeconds": 1, "progressDeadlineSeconds": 20},
    "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
}


@dataclass
class Watch:
    """When each alert was first seen firing, and when its condition was caused."""

    rules: RulesPrometheus
    caused: dict[str, float] = field(default_factory=dict)
    fired: dict[str, float] = field(default_factory=dict)

    def cause(self, *alerts: str) -> None:
        self.caused |= dict.fromkeys(alerts, time.monotonic())

    def wait(self, *alerts: str, own_s: float, rules_min: float) -> None:
        """Wait until they fire: `rules_min` by the runbook, and what the condition itself takes."""
        within_s = own_s + rules_min * 60 / FASTER + SLACK_S

        def fire() -> bool:
            for labels in self.rules.firing():
                self.fired.setdefault(labels["alertname"], time.monotonic())
            if missing := [alert for alert in alerts if alert not in self.fired]:
                raise NotYetError(f"not firing: {missing}; firing: {sorted(self.fired)}")
            return True

        left_s = max(1.0, self.caused[alerts[0]] + within_s - time.monotonic())
        wait_until(fire, within_s=left_s, what=f"{', '.join(alerts)} to fire", every_s=0.5)

    def wait_scraped(self, series: str) -> None:
        what = f"{series} to be scraped"
        wait_until(lambda: self.rules.query(series), within_s=SCRAPED_S, what=what, every_s=0.5)

    def figures(self) -> dict[str, float]:
        return {
            name: round(at - self.caused[name], 1)
            for name, at in self.fired.items()
            if name in self.caused
        }


@pytest.fixture
def watch(kube: Kube, operator: OperatorRelease) -> Iterator[Watch]:
    rules = RulesPrometheus(kube)
    rules.start()
    found = Watch(rules)
    try:
        yield found
    finally:
        rules.stop()
        FIGURES.parent.mkdir(parents=True, exist_ok=True)
        known = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
        FIGURES.write_text(json.dumps(known | found.figures(), indent=2, sort_keys=True))
        print(f"seconds from cause to alert, rules {FASTER} times as fast:", found.figures())


@dataclass
class Apps:
    """Makes apps that misbehave when asked."""

    kube: Kube
    namespace: str
    ingress_url: str

    def code(self, name: str, *, refused_by: str = "", comment: str = "") -> dict[str, Any]:
        release = f"REFUSED_BY = {refused_by!r}  # {comment}\n"
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": f"{name}-code"},
            "data": {"main.py": SOURCE.read_text(), "release.py": release},
        }

    def begin(self, name: str, server: dict[str, Any] | None = None, **spec: Any) -> WsgiApp:
        host = f"{name}.{self.namespace}.example.com"
        app = steady_app.build_app(self.namespace, **{**SMALL, **spec})
        app["metadata"]["name"] = name
        app["spec"]["ingress"]["hosts"] = [host]
        app["spec"]["source"]["configMap"]["name"] = f"{name}-code"
        app["spec"]["server"] |= server or {}
        self.kube.apply(self.code(name), app, namespace=self.namespace)
        return WsgiApp(self.kube, self.namespace, name, host, self.ingress_url)


@pytest.fixture
def apps(kube: Kube, namespace: str, cluster: Cluster) -> Apps:
    return Apps(kube, namespace, cluster.ingress_url)


def load(app: WsgiApp, path: str, **plan: Any) -> BackgroundLoad:
    shares = {
        "post_share": 0.0,
        "slow_share": 0.0,
        "new_connection_share": 0.0,
        "expect_version": False,
    }
    return BackgroundLoad(app.load_plan(get_path=path, timeout_s=120.0, **{**shares, **plan}))


def all_ready(watch: Watch, *apps: WsgiApp) -> None:
    """Wait until they serve, and until their counters have been seen once, before they grow."""
    for app in apps:
        app.wait_condition("Ready", "True", within_s=120)
        for pod in app.serving_pods():
            watch.wait_scraped(f'wsgi_ready{{namespace="{app.namespace}",pod="{pod}"}}')


def test_requests_that_fail_or_take_too_long(watch: Watch, apps: Apps) -> None:
    failing = apps.begin("failing")
    slow = apps.begin("slow", {"requestTimeoutSeconds": 1})
    all_ready(watch, failing, slow)
    watch.cause("WsgiErrorBudgetBurnsFast", "WsgiErrorBudgetBurnsSlowly", "WsgiRequestTimeouts")
    with load(failing, "/fail", rate=5.0), load(slow, "/sleep?s=5", connections=4):
        watch.wait("WsgiErrorBudgetBurnsFast", own_s=5, rules_min=7)
        watch.wait("WsgiRequestTimeouts", own_s=10, rules_min=0)
        watch.wait("WsgiErrorBudgetBurnsSlowly", own_s=5, rules_min=20)


def test_more_work_than_room(watch: Watch, apps: Apps) -> None:
    full = apps.begin("full", {"workers": 1, "threads": 1, "extraArgs": ["--backlog=4"]})
    busy = apps.begin("busy", {"workers": 1, "threads": 2})
    all_ready(watch, full, busy)
    watch.cause("WsgiAcceptQueueNearLimit", "WsgiAcceptQueueOverflow", "WsgiSaturated")
    with (
        load(full, "/sleep?s=2", connections=40, new_connection_share=1.0),
        load(busy, "/sleep?s=0.6", connections=24),
    ):
        watch.wait("WsgiAcceptQueueOverflow", own_s=5, rules_min=0)
        watch.wait("WsgiAcceptQueueNearLimit", own_s=5, rules_min=1)
        watch.wait("WsgiSaturated", own_s=5, rules_min=10)


def test_workers_that_crash_or_grow(watch: Watch, apps: Apps) -> None:
    crashing = apps.begin("crashing")
    growing = apps.begin("growing", {"maxWorkerMemory": "64Mi"})
    all_ready(watch, crashing, growing)
    watch.cause("WsgiWorkersCrashLoop", "WsgiWorkersOverMemory")
    with load(crashing, "/crash", rate=2.0), load(growing, "/grow", rate=1.0):
        watch.wait("WsgiWorkersCrashLoop", own_s=10, rules_min=3)
        watch.wait("WsgiWorkersOverMemory", own_s=30, rules_min=0)


def test_pod_that_is_near_its_memory_limit(watch: Watch, apps: Apps) -> None:
    memory = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}
    heavy = apps.begin("heavy", {"workers": 1}, resources=memory)
    all_ready(watch, heavy)
    rest_mib = round(0.95 * 256 - used_mib(heavy, heavy.serving_pods()[0]))
    watch.cause("WsgiMemoryNearLimit")
    with load(heavy, f"/hold?mib={rest_mib}", rate=1.0) as under:
        watch.wait("WsgiMemoryNearLimit", own_s=10, rules_min=5)
        report = under.finish()
    assert report.is_clean, report.to_text()


def test_reload_that_one_of_two_pods_refuses(watch: Watch, apps: Apps) -> None:
    mixed = apps.begin("mixed", replicas=2)
    all_ready(watch, mixed)
    _reload_one_of_two(apps, mixed, watch)
    watch.wait("WsgiReloadFailed", own_s=30, rules_min=0)
    watch.wait("WsgiContentSkew", own_s=30, rules_min=15)


def test_pods_that_are_silent_or_absent(watch: Watch, apps: Apps) -> None:
    silent = apps.begin("silent")
    all_ready(watch, silent)
    watch.cause("WsgiServerAbsent", "WsgiAppNotReady", "WsgiAppNotScraped", "WsgiAppRolloutStuck")
    apps.begin("absent", app="missing:application")
    apps.begin("unscraped", replicas=0)
    watch.cause("WsgiAgentDown")
    with hung(find_agent(silent, silent.serving_pods()[0])):
        watch.wait("WsgiAgentDown", own_s=2, rules_min=3)
    watch.wait("WsgiServerAbsent", own_s=60, rules_min=5)
    watch.wait("WsgiAppRolloutStuck", own_s=20 + 10, rules_min=1)
    watch.wait("WsgiAppNotReady", "WsgiAppNotScraped", own_s=15, rules_min=15)


def test_call_that_does_not_end(watch: Watch, apps: Apps) -> None:
    stuck = apps.begin("stuck", {"requestTimeoutSeconds": 0})
    all_ready(watch, stuck)
    watch.cause("WsgiRequestStuck")
    with load(stuck, "/sleep?s=100", connections=1):
        watch.wait("WsgiRequestStuck", own_s=60, rules_min=2)


def _reload_one_of_two(apps: Apps, app: WsgiApp, watch: Watch) -> None:
    """Reload so that one pod takes the new version and the other does not, whichever comes first."""
    watch.cause("WsgiReloadFailed", "WsgiContentSkew")
    for pod in app.serving_pods():
        before = app.reload_hash()
        code = apps.code(app.name, refused_by=pod, comment=pod)
        apps.kube.apply(code, namespace=app.namespace)
        app.wait_reload(after=before, status="False", within_s=60)
        if _versions(app) > 1:
            return
    raise AssertionError("both pods refused their turn before the other took it")


def _versions(app: WsgiApp) -> int:
    return len(
        {
            json.dumps(json.loads(app.ask_agent(pod, "/status")[1])["content"], sort_keys=True)
            for pod in app.serving_pods()
        }
    )


def test_upgrade_that_stands_still(watch: Watch, apps: Apps, operator: OperatorRelease) -> None:
    plain = apps.begin("plain")
    all_ready(watch, plain)
    try:
        watch.cause("WsgiAppUpgradeStuck")
        operator.install("apps.podId=10003", "prefork.image.tag=missing")
        watch.wait("WsgiAppUpgradeStuck", own_s=60, rules_min=5)
    finally:
        operator.install()


def test_operator_that_does_not_lead_or_is_gone(
    watch: Watch, kube: Kube, operator: OperatorRelease
) -> None:
    watch.wait_scraped("wsgiapp_operator_leader")
    try:
        with _usurped(kube):
            watch.cause("WsgiAppOperatorNoLeader")
            watch.wait("WsgiAppOperatorNoLeader", own_s=30, rules_min=2)
        _scale_operator(kube, 0)
        watch.cause("WsgiAppOperatorAbsent")
        watch.wait("WsgiAppOperatorAbsent", own_s=15, rules_min=10)
    finally:
        _scale_operator(kube, 1)
        operator.install()


def test_operator_whose_permissions_are_too_few(watch: Watch, apps: Apps, kube: Kube) -> None:
    all_ready(watch, apps.begin("settled"))
    with _without_permission(kube, "get", "wsgiapps"):
        watch.cause("WsgiAppOperatorErrors")
        apps.begin(
            "unknown"
        )  # before it creates anything, the operator asks whether the app is still there
        watch.wait("WsgiAppOperatorErrors", own_s=10, rules_min=15)


@contextmanager
def _without_permission(kube: Kube, verb: str, resource: str) -> Iterator[None]:
    """Leave a verb out of the operator's ClusterRole, as one of another version may."""
    role = json.loads(kube.kubectl("get", "clusterrole", RELEASE, "-o", "json"))
    fewer = json.loads(json.dumps(role["rules"]))
    (rule,) = (rule for rule in fewer if resource in rule["resources"])
    rule["verbs"].remove(verb)
    try:
        kube.patch("clusterrole", RELEASE, {"rules": fewer}, namespace="default")
        yield
    finally:
        kube.patch("clusterrole", RELEASE, {"rules": role["rules"]}, namespace="default")


def _scale_operator(kube: Kube, replicas: int) -> None:
    kube.kubectl("scale", "-n", OPERATOR_NAMESPACE, "deployment", "--all", f"--replicas={replicas}")


@contextmanager
def _usurped(kube: Kube) -> Iterator[None]:
    """Let another holder, which does nothing, have the operator's Lease."""
    stop = threading.Event()
    usurper = threading.Thread(target=_hold_the_lease, args=(kube, stop))
    usurper.start()
    try:
        yield
    finally:
        stop.set()
        usurper.join()
        kube.kubectl("delete", "lease", LEASE, "-n", LEASES)


def _hold_the_lease(kube: Kube, stop: threading.Event) -> None:
    while not stop.wait(0.5):
        now = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
        spec = {"holderIdentity": "a-test", "renewTime": now, "leaseDurationSeconds": 3600}
        kube.patch("lease", LEASE, {"spec": spec}, namespace=LEASES)
