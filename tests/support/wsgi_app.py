"""One WsgiApp in the cluster, as the tests and the demo look at it: its status, pods and load."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

from tests.support.kube import Kube, KubectlError
from tests.support.load_report import LoadPlan
from tests.support.wait import NotYetError, wait_until

LOAD_RATE = 320.0  # requests a second; the promises are made for 300 and more


@dataclass(frozen=True, slots=True)
class Condition:
    """A status condition; `is_current` when it speaks of the newest spec."""

    status: str
    reason: str
    message: str
    is_current: bool


@dataclass(frozen=True, slots=True)
class WsgiApp:
    """Where an app is; every method looks anew."""

    kube: Kube
    namespace: str
    name: str
    host: str
    ingress_url: str

    def get(self) -> dict[str, Any]:
        """Return the object."""
        return self.kube.get("wsgiapps", self.name, namespace=self.namespace)

    def status(self) -> dict[str, Any]:
        """Return the object's status, {} before the operator wrote one."""
        status: dict[str, Any] = self.get().get("status", {})
        return status

    def condition(self, kind: str) -> Condition:
        """Return a condition; NotYetError while the operator has not written it."""
        app = self.get()
        status = app.get("status", {})
        for found in status.get("conditions", []):
            if found["type"] == kind:
                seen = found.get("observedGeneration", status.get("observedGeneration"))
                return Condition(
                    status=found["status"],
                    reason=found["reason"],
                    message=found["message"],
                    is_current=seen == app["metadata"]["generation"],
                )
        raise NotYetError(f"no condition {kind} in {status}")

    def wait_condition(
        self, kind: str, status: str, *, within_s: float, reason: str | None = None
    ) -> Condition:
        """Wait until a condition has that status (and reason) for the newest spec."""

        def holds() -> Condition:
            found = self.condition(kind)
            wanted = found.status == status and reason in (None, found.reason)
            if wanted and found.is_current:
                return found
            raise NotYetError(str(found))

        what = f"{kind}={status} of wsgiapp {self.namespace}/{self.name}"
        return wait_until(holds, within_s=within_s, what=what)

    def reload_hash(self) -> str:
        """Return the id of the newest reload the operator has seen a wish for, or ''."""
        return str(self.status().get("reload", {}).get("hash", ""))

    def wait_reload(self, *, after: str, status: str, within_s: float) -> Condition:
        """Wait until a reload newer than the hash `after` has ended; `status` of Reloaded."""

        def newer() -> bool:
            found = self.reload_hash()
            if found in ("", after):
                raise NotYetError(f"reload hash {found!r}")
            return True

        wait_until(newer, within_s=within_s, what="the operator to see the change")
        return self.wait_condition("Reloaded", status, within_s=within_s)

    def pods(self) -> list[dict[str, Any]]:
        """Return the app's pods, those that are not being deleted first, then by age."""
        pods = self.kube.list(
            "pods", namespace=self.namespace, selector=f"wsgi.dev/app={self.name}"
        )
        return sorted(
            pods,
            key=lambda pod: (
                "deletionTimestamp" in pod["metadata"],
                pod["metadata"]["creationTimestamp"],
            ),
        )

    def serving_pods(self) -> list[str]:
        """Return the names of the pods that are ready and stay."""
        return [
            pod["metadata"]["name"]
            for pod in self.pods()
            if "deletionTimestamp" not in pod["metadata"] and is_ready(pod)
        ]

    def wait_serving_pods(self, count: int, *, within_s: float) -> list[str]:
        """Wait until exactly that many pods are there, all ready, none on its way out."""

        def settled() -> list[str]:
            serving, pods = self.serving_pods(), self.pods()
            if len(serving) == len(pods) == count:
                return serving
            raise NotYetError(f"{len(serving)} of {len(pods)} pods serve")

        what = f"{count} serving pods of {self.namespace}/{self.name}"
        return wait_until(settled, within_s=within_s, what=what, every_s=0.3)

    def find_worker(self, pod: str) -> int:
        """Return the process id, in its container, of the worker that answers next in that pod.

        The app names its process: in X-Worker-Pid, or in its text as "worker 123".
        """
        inside = ("exec", "-n", self.namespace, pod, "-c", "app", "--")
        return int(self.kube.kubectl(*inside, "python3", "-c", _FIND_WORKER))

    def kill_command(self, pod: str, worker: int) -> list[str]:
        """Return the arguments of kubectl that send SIGKILL to a worker."""
        inside = ["exec", "-n", self.namespace, pod, "-c", "app", "--"]
        return [*inside, "sh", "-c", f"kill -9 {worker}"]

    def kill_worker(self, pod: str) -> int:
        """Send SIGKILL to the worker that answers next in that pod; return its process id."""
        worker = self.find_worker(pod)
        self.kube.kubectl(*self.kill_command(pod, worker))
        return worker

    def kill_mold(self, pod: str) -> None:
        """Send SIGKILL to the process in that pod that has imported the app and forks its workers."""
        inside = ("exec", "-n", self.namespace, pod, "-c", "app", "--")
        self.kube.kubectl(*inside, "python3", "-c", _KILL_MOLD)

    def restart_containers(self, *pods: str, within_s: float = 90) -> None:
        """End the app's container of each pod at once, as one that is killed for memory, and wait until the kubelet
        has started all of them anew."""
        before = {pod: self.restarts(pod) for pod in pods}
        for pod in pods:
            self._kill_container(pod)

        def are_restarted() -> bool:
            now = {pod: self.restarts(pod) for pod in pods}
            if any(now[pod] <= before[pod] for pod in pods):
                raise NotYetError(f"restarts {now}, before {before}")
            return True

        what = f"the containers of {', '.join(pods)} to be started anew"
        wait_until(are_restarted, within_s=within_s, what=what, every_s=0.3)

    def _kill_container(self, pod: str) -> None:
        inside = ("exec", "-n", self.namespace, pod, "-c", "app", "--")
        try:
            self.kube.kubectl(*inside, "python3", "-c", _KILL_CONTAINER)
        except KubectlError as error:
            if KILLED not in str(error):  # the command may go with its container
                raise

    def restarts(self, pod: str, container: str = "app") -> int:
        """Return how often the kubelet has started a container of a pod anew."""
        status = self.kube.get("pods", pod, namespace=self.namespace)["status"]
        every = status.get("containerStatuses", []) + status.get("initContainerStatuses", [])
        return next(int(each["restartCount"]) for each in every if each["name"] == container)

    def fetch(self, pod: str, path: str) -> tuple[int, str]:
        """Return status and text of a GET, asked of this very pod."""
        return self.kube.fetch_from_pod(pod, 8000, path, namespace=self.namespace)

    def ask_agent(self, pod: str, path: str) -> tuple[int, str]:
        """Return status and text of a GET, asked of the agent of a pod."""
        return self.kube.fetch_from_pod(pod, 9000, path, namespace=self.namespace)

    def load_plan(self, **changes: object) -> LoadPlan:
        """Return the plan that every promise is tested with, with changes."""
        plan = LoadPlan(
            url=self.ingress_url,
            host=self.host,
            rate=LOAD_RATE,
            connections=32,
            duration_s=600.0,
            timeout_s=30.0,
            slow_share=0.005,
            slow_ms=200,
            allow_remote=os.environ.get("WSGIAPP_LOAD_REMOTE") == "1",
        )
        return dataclasses.replace(plan, **changes)  # type: ignore[arg-type]


_FIND_WORKER = """
import re, urllib.request
with urllib.request.urlopen("http://127.0.0.1:8000/", timeout=10) as answer:
    text = answer.read().decode()
    print(answer.headers["X-Worker-Pid"] or re.search(r"worker ([0-9]+)", text)[1])
"""


_KILL_MOLD = """
import os, pathlib, signal
for process in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        name = (process / "comm").read_text().strip()
    except OSError:  # ended meanwhile
        continue
    if name == "prefork-mold":
        os.kill(int(process.name), signal.SIGKILL)
"""
KILLED = "exit code 137"
# The first process of a container takes no SIGKILL from within; the server ends on SIGQUIT at once.
_KILL_CONTAINER = "import os, signal; os.kill(1, signal.SIGQUIT)"


def is_ready(pod: dict[str, Any]) -> bool:
    """Whether a pod's condition Ready is True."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
