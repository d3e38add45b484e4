"""The main job on a real cluster: install, apply, reload under load, break, mend, kill."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.cluster import Cluster
from tests.demo import manifest
from tests.demo.screen import Screen
from tests.support.background_load import BackgroundLoad
from tests.support.kube import Kube, NotFoundError
from tests.support.load_report import LoadReport
from tests.support.operator_release import NAMESPACE as OPERATOR_NAMESPACE
from tests.support.operator_release import OperatorRelease
from tests.support.wait import NotYetError, wait_until
from tests.support.wsgi_app import Condition, WsgiApp

NAMESPACE = "demo"
_LAST_LINE = "ModuleNotFoundError: No module named 'flsk'"
_FOLDER = manifest.ROOT / "build" / "demo"
_LOG = manifest.ROOT / "build" / "logs" / "cluster-up.log"
_WARM_UP_S = 2.0
_LOAD_S = 12.0
_AFTER_S = 3.0  # load goes on for that long after a change has ended

Figures = list[tuple[str, LoadReport]]


class ClusterStart:
    """`python -m tests.cluster up` beside other work; its output is a log.

    Building yields to what is shown meanwhile; the cluster itself runs at normal priority.
    """

    def __enter__(self) -> Self:
        _LOG.parent.mkdir(parents=True, exist_ok=True)
        self._log: IO[str] = _LOG.open("w")
        build_and_start = 'nice -n 10 "$0" -m tests.cluster build && exec "$0" -m tests.cluster up'
        self._process = subprocess.Popen(
            ["sh", "-c", build_and_start, sys.executable],
            cwd=manifest.ROOT,
            start_new_session=True,  # to be ended as a whole, compilers included
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait()
        self._log.close()

    def is_over(self) -> bool:
        """Whether it has ended, well or not."""
        return self._process.poll() is not None

    def news(self) -> str:
        """Return the last line it printed."""
        lines = _LOG.read_text(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "")
        return last.rsplit("\r", 1)[-1].strip()

    def wait(self, screen: Screen) -> None:
        """Wait for its end; RuntimeError with the end of its log when the cluster is not up."""
        screen.wait("the cluster is being built and started", self.is_over, news=self.news)
        if self._process.returncode != 0:
            end = "\n".join(_LOG.read_text(errors="replace").splitlines()[-30:])
            raise RuntimeError(f"the cluster did not start; the end of {_LOG}:\n{end}")
        steps = [line for line in _LOG.read_text(errors="replace").splitlines() if " ok " in line]
        screen.output("\n".join(steps))


class ClusterStory:
    """The steps on the cluster, in order; `figures` are those of the loads."""

    def __init__(self, screen: Screen, cluster: Cluster, kube: Kube) -> None:
        self._screen = screen
        self._cluster = cluster
        self._kube = kube
        self._example = manifest.EXAMPLE.read_text()
        self._app = WsgiApp(kube, NAMESPACE, manifest.APP, manifest.HOST, cluster.ingress_url)
        self.figures: Figures = []

    def tell(self) -> None:
        """Tell all of it."""
        screen = self._screen
        with screen.step("helm install of the operator's chart"):
            self._install()
        with screen.step("kubectl apply of a Flask app whose code is a ConfigMap"):
            self._apply()
        with screen.step("Through Nginx by host name"):
            self._curl("1")
        with screen.step("What Prometheus knows of the workers"):
            self._show_metrics()
        with screen.step("A code change under load"):
            self._change_code("2", case="code change: rolling graceful reload", before="1")
        with screen.step("A broken change under load"):
            self._break_code(serving="2")
        with screen.step("A change that starts but is not healthy, under load"):
            self._break_health(serving="2")
        with screen.step("A pod deleted meanwhile: the new one starts with the last good code"):
            self._delete_pod(serving="2")
        with screen.step("The mended change"):
            self._change_code("3", case="mended change", before="2")
        with screen.step("A worker killed -9 under load"):
            self._kill_worker()

    def _install(self) -> None:
        release = OperatorRelease(self._cluster.helm, self._cluster.kubeconfig, self._kube)
        self._screen.command("helm " + " ".join(release.command()))
        self._screen.output(release.install().partition("NOTES:")[0])
        self._run("get", "pods", "-n", OPERATOR_NAMESPACE)

    def _apply(self) -> None:
        self._run("apply", "-f", self._write("namespace", _NAMESPACE_MANIFEST))
        try:
            before = self._app.reload_hash()
        except NotFoundError:
            before = ""
        example = self._write(manifest.APP, manifest.change_host(self._example))
        printed = self._run("apply", "-n", NAMESPACE, "-f", example)
        if before and "configmap/flask-code configured" in printed:
            self._screen.say("The app is there from an earlier run; it reloads to this version.")
            self._app.wait_reload(after=before, status="True", within_s=120)
        self._watch_until_ready()
        self._run("get", "pods", "-n", NAMESPACE)

    def _watch_until_ready(self) -> None:
        arguments = ("get", "wsgi", manifest.APP, "-n", NAMESPACE, "--watch")
        self._screen.command("kubectl " + shlex.join(arguments))
        for line in self._kube.follow(*arguments, within_s=120):
            self._screen.output(line)
            if line.split()[1:2] == ["True"]:  # column READY
                return
        raise TimeoutError("the app was not ready within 120 s")

    def _curl(self, version: str) -> None:
        url = self._cluster.ingress_url
        self._screen.command(f"curl -i -H 'Host: {manifest.HOST}' {url}/")
        printed = subprocess.run(
            ["curl", "-sS", "-i", "--max-time", "10", "-H", f"Host: {manifest.HOST}", f"{url}/"],
            capture_output=True,
            text=True,
            check=False,
        )
        self._screen.output((printed.stdout or printed.stderr).replace("\r", ""))
        answered = f"Hello from version {version}," in printed.stdout
        self._screen.check(answered, f"version {version} answers through the ingress")

    def _show_metrics(self) -> None:
        def ask(query: str) -> list[str]:
            found = self._cluster.prometheus_query(query)
            if not found:
                raise NotYetError("no value yet")
            return [
                f"{' '.join(sorted(map(str, series['metric'].values()))):60} {series['value'][1]}"
                for series in found
            ]

        for query in (
            f'sum by (pod) (wsgi_workers{{namespace="{NAMESPACE}"}})',
            f'sum by (pod, code) (wsgi_http_requests_total{{namespace="{NAMESPACE}"}}) > 0',
            f'sum by (pod) (wsgi_worker_resident_memory_bytes{{namespace="{NAMESPACE}"}})',
        ):
            self._screen.command(f"promql: {query}")
            try:
                lines = wait_until(lambda q=query: ask(q), within_s=60, what=query, every_s=1)  # type: ignore[misc]
            except TimeoutError as error:
                self._screen.check(False, str(error))
                continue
            self._screen.output("\n".join(lines))
        workers = f'sum(wsgi_workers_desired{{namespace="{NAMESPACE}"}})'

        def four_workers() -> str:
            found = self._cluster.prometheus_query(workers)
            count = found[0]["value"][1] if found else "no"
            if count != "4":
                raise NotYetError(f"{count} workers")
            return "Prometheus sees 4 workers wanted: 2 pods with 2"

        # Pods of an earlier revision end with their drain delay, and their series with them.
        try:
            self._screen.check(True, wait_until(four_workers, within_s=60, what=workers, every_s=1))
        except TimeoutError as error:
            self._screen.check(False, f"Prometheus sees 4 workers wanted: {error}")

    def _change_code(self, version: str, *, case: str, before: str) -> None:
        pods = self._app.serving_pods()
        text = manifest.only_code(manifest.change_version(self._example, version))
        with self._load(case) as load:
            condition = self._apply_code(text, f"flask-{version}", expect="True")
            report = self._finish(load, case)
        self._screen.output(f"Reloaded={condition.status}: {condition.message}")
        seen = list(report.versions)
        self._screen.check(
            seen == [before, version], f"answers came from versions {', then '.join(seen)}"
        )
        self._screen.check(self._app.serving_pods() == pods, "in the same pods: nothing restarted")
        self._curl(version)

    def _break_code(self, *, serving: str) -> None:
        case = "broken change"
        text = manifest.only_code(manifest.break_import(self._example))
        with self._load(case) as load:
            condition = self._apply_code(text, "flask-broken", expect="False")
            report = self._finish(load, case)
        self._run("get", "wsgi", "-n", NAMESPACE)
        self._screen.output(f"Reloaded={condition.status}: {condition.message}")
        self._screen.check(_LAST_LINE in condition.message, f"the condition says {_LAST_LINE!r}")
        seen = list(report.versions)
        self._screen.check(seen == [serving], f"only version {serving} answered")

    def _break_health(self, *, serving: str) -> None:
        case = "unhealthy change"
        text = manifest.only_code(manifest.break_health(self._example))
        with self._load(case) as load:
            condition = self._apply_code(text, "flask-unhealthy", expect="False")
            report = self._finish(load, case)
        self._screen.output(f"Reloaded={condition.status}: {condition.message}")
        told = "/healthz" in condition.message and "500" in condition.message
        self._screen.check(told, "the condition says that /healthz answered 500")
        self._screen.check(
            list(report.versions) == [serving], f"only version {serving} answered, from both pods"
        )

    def _delete_pod(self, *, serving: str) -> None:
        case = "pod deleted after a broken change"
        gone = self._app.serving_pods()[0]
        # nginx reloads when endpoints change, and closes idle connections: POSTs have one each.
        with self._load(case, post_reuse=False) as load:
            self._run("delete", "pod", gone, "-n", NAMESPACE, "--wait=false")
            pods = self._app.wait_serving_pods(2, within_s=90)
            report = self._finish(load, case)
        self._run("get", "pods", "-n", NAMESPACE)
        self._screen.check(gone not in pods, "another pod has taken its place")
        self._screen.check(
            list(report.versions) == [serving], f"only version {serving} answered, the new pod too"
        )

    def _kill_worker(self) -> None:
        case = "a worker killed -9"
        pod = self._app.serving_pods()[0]
        # A POST in the killed worker's hands would be lost, and nginx must not send it again;
        # a GET it asks of the other pod.
        with self._load(case, post_share=0.0, slow_share=0.0) as load:
            worker = self._app.find_worker(pod)
            self._run(*self._app.kill_command(pod, worker))
            self._finish(load, case)
            self._show_kills(pod)
        wait_until(
            lambda: self._app.status().get("workers", {}).get("ready") == 4,
            within_s=90,
            what="4 ready workers",
        )
        self._run("get", "wsgi", "-n", NAMESPACE)

    def _show_kills(self, pod: str) -> None:
        """Show what the arbiter said of the killed worker."""
        arguments = ("logs", "-n", NAMESPACE, pod, "-c", "app", "--since=1m")
        self._screen.command("kubectl " + " ".join(arguments))
        lines = self._kube.kubectl(*arguments).splitlines()
        said = [line for line in lines if "worker " in line]
        self._screen.output("\n".join(said), lines=4)

    # --- the parts they are made of -----------------------------------------------------------

    @contextmanager
    def _load(self, case: str, **plan: object) -> Iterator[BackgroundLoad]:
        settings = self._app.load_plan(**plan)
        self._screen.say(
            f"Load: {settings.rate:.0f} requests a second through the ingress ({case})"
        )
        with BackgroundLoad(settings) as load:
            load.run_until(_WARM_UP_S)
            yield load

    def _finish(self, load: BackgroundLoad, case: str) -> LoadReport:
        load.run_until(max(_LOAD_S, load.elapsed_s + _AFTER_S))
        report = load.finish()
        self.figures.append((case, report))
        bad = report.failed + report.wrong
        worst = f"worst latency {report.max_s * 1000:.0f} ms"
        self._screen.check(report.is_clean, f"{bad} of {report.sent} requests failed; {worst}")
        if not report.is_clean:
            self._screen.output(report.to_text())
        return report

    def _apply_code(self, text: str, name: str, *, expect: str) -> Condition:
        before = self._app.reload_hash()
        self._run("apply", "-n", NAMESPACE, "-f", self._write(name, text))
        return self._app.wait_reload(after=before, status=expect, within_s=90)

    def _write(self, name: str, text: str) -> str:
        """Write a manifest and return its path as typed."""
        _FOLDER.mkdir(parents=True, exist_ok=True)
        file = _FOLDER / f"{name}.yaml"
        file.write_text(text)
        return str(file.relative_to(manifest.ROOT))

    def _run(self, *arguments: str) -> str:
        self._screen.command("kubectl " + shlex.join(arguments))
        printed = self._kube.kubectl(*arguments)
        self._screen.output(printed)
        return printed


_NAMESPACE_MANIFEST = f"""\
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    pod-security.kubernetes.io/enforce: restricted
"""


def say_how_to_look_around(screen: Screen, cluster: Cluster) -> None:
    """Print what a person types next."""
    folder = Path(cluster.kubectl).parent
    screen.text(f"""\
The cluster is left running. To look around:
  export KUBECONFIG={cluster.kubeconfig} PATH={folder}:$PATH
  kubectl get wsgi,pods -n {NAMESPACE}
  kubectl describe wsgi {manifest.APP} -n {NAMESPACE}
  kubectl explain wsgiapp.spec
  kubectl port-forward -n monitoring service/prometheus 9090    # then http://127.0.0.1:9090
  curl -H 'Host: {manifest.HOST}' {cluster.ingress_url}/
To take it down, with everything it put on this machine:
  make cluster-down""")
