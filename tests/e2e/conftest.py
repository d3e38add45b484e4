"""What the e2e tests share: the cluster, the operator's release, an app under load, the figures.

A cluster that this run started is taken down by it, also after a failure, unless KEEP_CLUSTER=1.
Each test has a namespace of its own; a test that fails shows what was going on in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import secrets
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import pytest

from tests.cluster import Cluster, ClusterError
from tests.e2e import figures, steady_app
from tests.e2e.namespaces import build_namespace
from tests.support.background_load import BackgroundLoad
from tests.support.kube import Kube
from tests.support.load_report import LoadReport
from tests.support.operator_release import ROOT, HelmError, OperatorRelease
from tests.support.wait import wait_until
from tests.support.wsgi_app import WsgiApp

WARM_UP_S = 3.0
MIN_RATE = 300.0
# As long as the change takes and this at least; `make e2e-full` asks for more requests.
MIN_LOAD_S = float(os.environ.get("E2E_LOAD_SECONDS", "6"))
START_S = 2.0  # what the client may take to start
READY_S = 90.0

_CASES = pytest.StashKey[list[figures.Case]]()
_FAILED = pytest.StashKey[bool]()
_SHARED = pytest.StashKey[contextlib.ExitStack]()
_FOLDER = ROOT / "build" / "e2e"


@contextlib.contextmanager
def _ready_cluster(config: pytest.Config) -> Iterator[Cluster]:
    """A running cluster with the images and the operator of this tree, for one run at a time."""
    cluster = Cluster.from_env()
    _FOLDER.mkdir(parents=True, exist_ok=True)
    with (_FOLDER / "lock").open("w") as lock:
        # Two runs would upgrade, remove and kill each other's operator.
        fcntl.flock(lock, fcntl.LOCK_EX)
        started_here = not cluster.is_running()
        try:
            with _shown(config):
                _require(cluster.up)
            with Kube(cluster.kubectl, cluster.kubeconfig) as kube:
                _require(_release_of(cluster, kube).install)
            yield cluster
        finally:
            if started_here and os.environ.get("KEEP_CLUSTER") != "1":
                with _shown(config):
                    cluster.down()


def _release_of(cluster: Cluster, kube: Kube) -> OperatorRelease:
    return OperatorRelease(cluster.helm, cluster.kubeconfig, kube)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Before a worker of pytest-xdist starts: all of them share what their controller has made ready."""
    if _SHARED not in node.config.stash:
        shared = node.config.stash[_SHARED] = contextlib.ExitStack()
        shared.enter_context(_ready_cluster(node.config))


def pytest_unconfigure(config: pytest.Config) -> None:
    if shared := config.stash.get(_SHARED, None):
        shared.close()


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A running cluster with the images and the operator of this tree."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        yield Cluster.from_env()
        return
    with _ready_cluster(request.config) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def kube(cluster: Cluster) -> Iterator[Kube]:
    """kubectl and the API of that cluster."""
    with Kube(cluster.kubectl, cluster.kubeconfig) as kube:
        yield kube


@pytest.fixture(scope="session")
def operator(cluster: Cluster, kube: Kube) -> OperatorRelease:
    """The operator as the chart has installed it; it stays with the cluster."""
    return _release_of(cluster, kube)


@contextlib.contextmanager
def _shown(config: pytest.Config) -> Iterator[None]:
    """Let what is printed through: a cluster that is being built must be seen to live."""
    capture = config.pluginmanager.getplugin("capturemanager")
    with contextlib.nullcontext() if capture is None else capture.global_and_fixture_disabled():
        print(flush=True)
        yield


def _require(prepare: Callable[[], object]) -> None:
    """Do what every test needs; when it fails, say so once instead of once for each test."""
    try:
        prepare()
    except (ClusterError, HelmError) as error:
        pytest.exit(f"nothing to test on: {error}", returncode=1)


_numbers = itertools.count(1)
_RUN = secrets.token_hex(3)  # namespaces of a run before may still be on their way out


@pytest.fixture
def namespace(
    request: pytest.FixtureRequest, kube: Kube, operator: OperatorRelease
) -> Iterator[str]:
    """A namespace of the test's own; see namespaces.py."""
    name = f"e2e-{_RUN}-{next(_numbers)}"
    kube.apply(*build_namespace(name), namespace=name)
    yield name
    if request.node.stash.get(_FAILED, False):
        _show_evidence(kube, operator, name)
    # The ingress reloads nginx when these go, which the next test's figures must not show; a
    # namespace alone takes its time, in no certain order.
    kube.kubectl("delete", "wsgi", "--all", "-n", name)
    wait_until(
        lambda: not kube.list("ingresses", namespace=name), within_s=60, what="no Ingress left"
    )
    kube.kubectl("delete", "namespace", name, "--wait=false")


class AppMaker(Protocol):
    """Makes the steady app in the test's namespace and waits until it is ready."""

    def __call__(
        self, *, version: str = "1", secret: str | None = None, **spec: Any
    ) -> WsgiApp: ...


@pytest.fixture
def view(cluster: Cluster, kube: Kube, namespace: str) -> Callable[[str], WsgiApp]:
    """Return the test's view of the WsgiApp with a name, in its namespace."""

    def look(name: str) -> WsgiApp:
        host = f"{name}.{namespace}.example.com"
        return WsgiApp(kube, namespace, name, host, cluster.ingress_url)

    return look


@pytest.fixture
def steady(view: Callable[[str], WsgiApp], kube: Kube, namespace: str) -> AppMaker:
    """See AppMaker."""

    def make(*, version: str = "1", secret: str | None = None, **spec: Any) -> WsgiApp:
        objects = [
            steady_app.build_code(steady_app.build_release(version)),
            steady_app.build_app(namespace, settings=secret is not None, **spec),
        ]
        if secret is not None:
            objects.insert(0, steady_app.build_secret(secret))
        kube.apply(*objects, namespace=namespace)
        app = view(steady_app.NAME)
        app.wait_condition("Ready", "True", within_s=READY_S)
        return app

    return make


class UnderLoad:
    """Load on an app while the test changes something; `finish` judges and keeps the figures."""

    def __init__(self, app: WsgiApp, case: str, cases: list[figures.Case], **plan: object) -> None:
        self._load = BackgroundLoad(app.load_plan(**plan))
        self._case = case
        self._cases = cases

    def __enter__(self) -> UnderLoad:
        self._load.__enter__()
        self._load.run_until(WARM_UP_S)
        wait_until(lambda: (latest := self._load.latest()) and latest.ok > 0, what="no answer")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._load.__exit__(kind, error, traceback)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the load began; no smaller than the times in its report."""
        return self._load.elapsed_s

    def run_on(self, seconds: float) -> None:
        """Let the load go on for some seconds."""
        self._load.run_until(self.elapsed_s + seconds)

    def finish(self, *, in_place: bool, least_s: float = MIN_LOAD_S) -> LoadReport:
        """End the load after `least_s` or more, and assert that nothing failed.

        in_place: no endpoint changed, so not even a GET may have needed its one retry.
        """
        self._load.run_until(max(least_s + START_S, self.elapsed_s + WARM_UP_S))
        wait_until(
            lambda: (latest := self._load.latest()) and latest.elapsed_s >= least_s,
            what=f"the load has not run for {least_s:g} s",
        )
        report = self._load.finish()
        self._cases.append(figures.Case(self._case, report))
        assert report.is_clean, report.to_text()
        assert report.rate >= MIN_RATE, report.to_text()
        assert report.elapsed_s >= least_s, report.to_text()
        if in_place:
            assert report.retried_reused_get == 0, report.to_text()
        return report


class LoadMaker(Protocol):
    """`with under_load(app, "the case's name") as load: …; load.finish(in_place=…)`."""

    def __call__(self, app: WsgiApp, case: str, **plan: object) -> UnderLoad: ...


@pytest.fixture
def under_load(request: pytest.FixtureRequest) -> LoadMaker:
    """See LoadMaker; changes of the plan by keyword."""
    cases = request.config.stash.setdefault(_CASES, [])

    def make(app: WsgiApp, case: str, **plan: object) -> UnderLoad:
        return UnderLoad(app, case, cases, **plan)

    return make


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What changes endpoints makes the ingress reload, which figures of another test must not show."""
    for item in items:
        if "under_load" in getattr(item, "fixturenames", ()):
            item.add_marker("alone")


# --- evidence and figures ---------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and report.when in ("setup", "call"):
        item.stash[_FAILED] = True
    return report


@dataclass(frozen=True, slots=True)
class _Look:
    title: str
    arguments: tuple[str, ...]


def _show_evidence(kube: Kube, operator: OperatorRelease, namespace: str) -> None:
    """Print what the namespace looked like; pytest shows it with the failure."""
    here = ("-n", namespace)
    looks = [
        _Look("wsgiapps", ("get", "wsgi", *here, "-o", "yaml")),
        _Look("pods", ("get", "pods", *here, "-o", "wide")),
        _Look("events", ("get", "events", *here, "--sort-by=.lastTimestamp")),
    ]
    with contextlib.suppress(Exception):
        for pod in kube.list("pods", namespace=namespace):
            name = pod["metadata"]["name"]
            arguments = ("logs", name, *here, "--all-containers", "--prefix", "--tail=80")
            looks.append(_Look(f"log of {name}", arguments))
    for look in looks:
        with contextlib.suppress(Exception):
            _show(look.title, kube.kubectl(*look.arguments))
    with contextlib.suppress(Exception):
        _show("operator", operator.log())


def _show(title: str, text: str) -> None:
    print(f"\n--- {title}\n{text}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    cases = terminalreporter.config.stash.get(_CASES, [])
    if not cases:
        return
    figures.write(cases, _FOLDER)
    terminalreporter.section("requests through the ingress")
    terminalreporter.write_line(figures.to_table(cases))
