"""What one WsgiApp becomes: pure functions from (app, platform) to manifests, one file per kind."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from wsgiapp.resources.deployment import build_deployment
from wsgiapp.resources.ingress import build_ingresses
from wsgiapp.resources.platform import Platform
from wsgiapp.resources.pod_disruption_budget import build_pod_disruption_budget
from wsgiapp.resources.service import build_service
from wsgiapp.resources.service_account import build_service_account
from wsgiapp.types import App, Manifest

__all__ = ["Platform", "build_resources", "has_service_account"]


def build_resources(
    app: App,
    platform: Platform,
    restart_digests: Mapping[str, str],
    *,
    shared_hosts: Collection[str] = (),
    taken_hosts: Collection[str] = (),
) -> list[Manifest]:
    """Return every object that `app` asks for, in the order in which they are to be applied.

    `restart_digests` has the digests of `app.restart_refs`, whose change restarts the pods.
    `shared_hosts` are shared with other apps by path, `taken_hosts` belong to others.
    """
    if app.server.image is not None:
        platform = replace(platform, prefork_image=app.server.image)
    owned = [
        *([] if has_service_account(app) else [build_service_account(app)]),
        build_service(app),
        *([build_pod_disruption_budget(app)] if app.disruption_budget.enabled else []),
        build_deployment(app, platform, restart_digests),
    ]
    if app.ingress is not None:
        owned += build_ingresses(app, app.ingress, shared=shared_hosts, left_out=taken_hosts)
    return owned


def has_service_account(app: App) -> bool:
    """Return whether the pods run as a ServiceAccount of the user's own."""
    return "serviceAccountName" in app.pod_template.get("spec", {})
