"""Whether an object of an owned resource's name may be written, and why the API server refused it. Pure."""

from wsgiapp.names import KIND, MANAGED_BY, MANAGED_BY_LABEL
from wsgiapp.types import App, Manifest

from wsgiapp_operator.client import ApiError
from wsgiapp_operator.state import Issue


def slot_of(app: App, manifest: Manifest) -> str:
    """Return the key of an owned resource: its kind, and its name where it is not the app's."""
    kind, name = str(manifest["kind"]), manifest["metadata"]["name"]
    return kind if name == app.name else f"{kind}/{name}"


def is_owned(live: Manifest, app: App) -> bool:
    return any(owner["uid"] == app.uid for owner in live["metadata"].get("ownerReferences", ()))


def find_obstacle(app: App, live: Manifest) -> Issue | None:
    """Return why `live` may not be written; None where it is the app's, or an orphan to be adopted.

    NameConflict: it is another's. ResourceTerminating: it is on its way out, deleted or left over from
    a WsgiApp of the same name, and its successor is made when it is gone.
    """
    kind, metadata = live["kind"], live["metadata"]
    owners = [owner for owner in metadata.get("ownerReferences", ()) if owner.get("controller")]
    if is_owned(live, app):
        return terminating(live) if "deletionTimestamp" in metadata else None
    if owners and owners[0]["kind"] == KIND and owners[0]["name"] == app.name:
        return terminating(live)
    is_ours = (metadata.get("labels") or {}).get(MANAGED_BY_LABEL) == MANAGED_BY
    if is_ours and not owners:
        return terminating(live) if "deletionTimestamp" in metadata else None
    owner = f" (it belongs to {owners[0]['kind']} {owners[0]['name']})" if owners else ""
    return Issue(
        "NameConflict",
        f"{kind} {metadata['name']} already exists and is not managed by this operator{owner}; "
        "give the WsgiApp another name, or delete that object",
    )


def terminating(live: Manifest) -> Issue:
    metadata = live["metadata"]
    waits_for = ", ".join(metadata.get("finalizers", ()))
    detail = f"; it waits for its finalizers: {waits_for}" if waits_for else ""
    return Issue(
        "ResourceTerminating",
        f"{live['kind']} {metadata['name']} is being deleted and will be created again when it is gone{detail}",
    )


def explain_refusal(what: str, error: ApiError, reason: str = "ApplyRefused") -> Issue:
    """Return what the API server refuses, its words, and the remedy."""
    if error.is_webhook_failure:
        return Issue(
            "WebhookFailed",
            f"the API server cannot admit {what}: {error.message}; bring that webhook back, or exclude what the "
            "operator writes from it. The operator tries again",
        )
    return Issue(
        reason,
        f"the API server refuses {what}: {error.message}; change the spec, or the policy, quota or role that "
        "refuses it",
    )
