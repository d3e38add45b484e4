"""What the dashboards are shown with: two apps under load and, one after the other, what they are made to show.

A reload, a reload that fails, one that fixes it, a worker that crashes, requests that fail, clients that leave,
requests that take too long, more requests than threads. About six minutes; each step waits until it has happened.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from tests.e2e import steady_app
from tests.support.background_load import BackgroundLoad
from tests.support.kube import Kube
from tests.support.wsgi_app import WsgiApp

SHOP, BLOG = "shop", "blog"
CALM_S = 20.0
TIMEOUT_S = 3  # longer than anything takes that is not meant to
BROKEN = "VERSION = '3'\nimport not_there\n"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Span:
    """When it was played, in Unix time."""

    start: float
    end: float


def play(kube: Kube, namespace: str, ingress_url: str, say: Say) -> Span:
    """Play the scenario with two apps in this namespace; the caller removes it."""
    shop, blog = (_deploy(kube, namespace, ingress_url, name) for name in (SHOP, BLOG))
    with ExitStack() as loads:
        loads.enter_context(BackgroundLoad(shop.load_plan(rate=120.0, slow_share=0.2, slow_ms=15)))
        loads.enter_context(BackgroundLoad(blog.load_plan(rate=40.0, slow_share=0.2, slow_ms=40)))
        say("calm")
        time.sleep(CALM_S)  # what rates are computed from
        start = time.time() - CALM_S / 2
        for title, step in (
            ("a reload", lambda: _reload(kube, shop, steady_app.build_release("2"), "True")),
            ("a reload that fails", lambda: _reload(kube, shop, BROKEN, "False")),
            ("a reload that works", lambda: _reload(kube, shop, steady_app.build_release("4"), "True")),
            ("a worker crashes", lambda: shop.kill_worker(shop.serving_pods()[0])),
            ("requests fail", lambda: _load(shop, 12.0, rate=4.0, get_path="/slow")),
            ("clients leave", lambda: _load(shop, 12.0, rate=3.0, slow_share=1.0, slow_ms=1500, timeout_s=0.4)),
            ("requests take too long", lambda: _load(shop, 12.0, rate=0.5, slow_share=1.0, slow_ms=4000)),
            ("more requests than threads", lambda: _load(shop, 20.0, connections=40, slow_share=0.75, slow_ms=300)),
        ):  # fmt: skip
            say(title)
            step()
            time.sleep(CALM_S)
    return Span(start, time.time())


def _deploy(kube: Kube, namespace: str, ingress_url: str, name: str) -> WsgiApp:
    """Deploy the app of the end-to-end tests under another name and wait until it is ready."""
    host = f"{name}.{namespace}.example.com"
    app = steady_app.build_app(namespace)
    app["metadata"]["name"] = name
    app["spec"]["ingress"]["hosts"] = [host]
    app["spec"]["source"]["configMap"]["name"] = f"{name}-code"
    app["spec"]["server"]["requestTimeoutSeconds"] = TIMEOUT_S
    kube.apply(_code(name, steady_app.build_release("1")), app, namespace=namespace)
    view = WsgiApp(kube, namespace, name, host, ingress_url)
    view.wait_condition("Ready", "True", within_s=90)
    return view


def _code(name: str, release: str) -> dict[str, object]:
    code = steady_app.build_code(release)
    code["metadata"]["name"] = f"{name}-code"
    return code


def _reload(kube: Kube, app: WsgiApp, release: str, status: str) -> None:
    before = app.reload_hash()
    kube.apply(_code(app.name, release), namespace=app.namespace)
    app.wait_reload(after=before, status=status, within_s=60)


def _load(app: WsgiApp, seconds: float, **changes: object) -> None:
    """Send more requests for some seconds; what becomes of them is for the dashboards to show."""
    plan = {"rate": 0.0, "post_share": 0.0, "slow_share": 0.0, **changes}
    with BackgroundLoad(app.load_plan(**plan)) as load:
        load.run_until(seconds)
