"""The operator as the chart installs it: one Helm release that the e2e tests and the demo share."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.kube import Kube
from tests.support.wait import NotYetError, wait_until
from tests.support.wsgi_app import is_ready

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "wsgiapp-operator"
RELEASE = "wsgiapp-operator"
NAMESPACE = "wsgiapp-system"


class HelmError(Exception):
    """helm ended with an error; the text is its command and what it printed."""


@dataclass(frozen=True, slots=True)
class OperatorRelease:
    """Installs, upgrades, looks at and removes the release."""

    helm: Path
    kubeconfig: Path
    kube: Kube
    chart: Path = CHART
    release: str = RELEASE
    namespace: str = NAMESPACE

    @property
    def _selector(self) -> str:
        return f"app.kubernetes.io/instance={self.release}"

    def command(self, *values: str, timeout_s: int = 180) -> list[str]:
        """Return the arguments after `helm` that install or upgrade the release."""
        sets = [part for value in values for part in ("--set", value)]
        where = ["--namespace", self.namespace, "--create-namespace"]
        inside = self.chart.is_relative_to(ROOT)
        chart = self.chart.relative_to(ROOT) if inside else self.chart
        return [
            "upgrade",
            "--install",
            self.release,
            str(chart),
            *where,
            "--wait",
            f"--timeout={timeout_s}s",
            "--reset-values",  # without any value helm would take those of the last time
            *sets,
        ]

    def install(self, *values: str, timeout_s: int = 180) -> str:
        """Install or upgrade with `--set` values and wait until the operator is ready."""
        return self.run_helm(*self.command(*values, timeout_s=timeout_s))

    def test(self) -> str:
        """Run the chart's own tests; HelmError when one fails."""
        return self.run_helm("test", self.release, "--namespace", self.namespace, "--timeout=90s")

    def roll_back(self) -> str:
        """Go back to the revision before and wait until the operator is ready."""
        where = ["--namespace", self.namespace, "--wait", "--timeout=180s"]
        return self.run_helm("rollback", self.release, *where)

    def uninstall(self) -> str:
        """Remove the release; the CRD and the apps stay."""
        return self.run_helm("uninstall", self.release, "--namespace", self.namespace, "--wait")

    def run_helm(self, *arguments: str) -> str:
        """Run helm in the tree; HelmError with what it printed when it fails."""
        done = subprocess.run(
            [self.helm, *arguments],
            cwd=ROOT,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode != 0:
            raise HelmError(f"helm {' '.join(arguments)}:\n{done.stderr or done.stdout}")
        return done.stdout

    def pod(self) -> str:
        """Return the name of the ready operator pod; NotYetError while there is none."""
        pods = self.kube.list("pods", namespace=self.namespace, selector=self._selector)
        for pod in pods:
            if is_ready(pod) and "deletionTimestamp" not in pod["metadata"]:
                return str(pod["metadata"]["name"])
        raise NotYetError(f"no ready operator among {[p['metadata']['name'] for p in pods]}")

    def kill(self) -> str:
        """Kill the operator at once, as a lost node does; return the name of the killed pod."""
        name = self.wait_ready()
        self.kube.kubectl(
            "delete", "pod", name, "-n", self.namespace, "--grace-period=0", "--force"
        )
        return name

    def wait_ready(self, *, within_s: float = 60) -> str:
        """Wait for a ready operator and return its pod's name."""
        return wait_until(self.pod, within_s=within_s, what="a ready operator", every_s=0.3)

    def log(self, *, lines: int = 80) -> str:
        """Return the end of the operator's log."""
        return self.kube.kubectl(
            "logs", "-n", self.namespace, "-l", self._selector, f"--tail={lines}", "--prefix"
        )
