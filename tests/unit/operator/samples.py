"""Values that the operator's tests share."""

from datetime import UTC, datetime, timedelta
from typing import Any

from wsgiapp.parse import parse_app
from wsgiapp.resources import Platform
from wsgiapp.types import App, Manifest, Ref
from wsgiapp_operator.cache import Digest
from wsgiapp_operator.state import AgentReload, AgentStatus, Before, End, Pod, ReloadRequest

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
EARLIER, LATER = "2026-11-22T11:00:00Z", "2026-11-22T11:59:55Z"  # by some node's clock
CRASHED, KILLED = End("containerd://1", by_itself=True), End("containerd://1", by_itself=False)
CODE = Ref("ConfigMap", "shop-code")
PLATFORM = Platform(
    prefork_image="wsgiapp/prefork:0.1.0", prefork_pull_policy="IfNotPresent", image_volumes=True
)


def make_manifest(**spec: Any) -> Manifest:
    base: Manifest = {
        "image": "shop:1",
        "app": "shop:app",
        "replicas": 3,
        "source": {"configMap": {"name": CODE.name}},
    }
    return {
        "apiVersion": "wsgi.dev/v1alpha1",
        "kind": "WsgiApp",
        "metadata": {"name": "shop", "namespace": "web", "uid": "app-uid", "generation": 1},
        "spec": {name: value for name, value in {**base, **spec}.items() if value is not None},
    }


def make_app(**spec: Any) -> App:
    return parse_app(make_manifest(**spec))


def digests(content: str, version: int = 1) -> dict[Ref, Digest]:
    return {CODE: Digest(version, content)}


def make_pod(
    name: str,
    *,
    serves: str | None = "old",
    request: ReloadRequest | None = None,
    result: str | None = None,
    message: str = "",
    asked_s_ago: float = 1.0,
    ready: bool = True,
    was_ready: bool = True,
    unready: str = "",
    steady_s: float = 3600.0,
    is_second: bool = False,
    end: End | None = None,
    template: str = "t1",
    state: str = "serving",
    terminating: bool = False,
    **more: Any,
) -> Pod:
    """A pod whose agent says that it serves the source `serves`; None: the agent does not answer."""
    agent = None
    if serves is not None:
        reload = AgentReload(request.id, result, message) if request and result else None
        agent = AgentStatus(
            state=state,
            content={"source": serves},
            workers_desired=2,
            workers_ready=2,
            workers_busy=1,
            reload=reload,
            unready=unready,
            steady_s=steady_s,
        )
    fields: dict[str, Any] = {
        "name": name, "uid": f"uid-{name}", "ip": "10.0.0.1", "template": template, "ready": ready,
        "terminating": terminating, "request": request,
        "requested_at": NOW - timedelta(seconds=asked_s_ago) if request else None,
        "before": Before("", was_ready, EARLIER, is_second) if request else None,
        "ready_changed": EARLIER, "end": end,
        "issue": None, "contents": {"source": CODE}, "agent": agent,
    }  # fmt: skip
    return Pod(**fields | more)
