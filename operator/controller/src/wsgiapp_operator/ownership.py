"""Whether an object of an owned resource's name may be written. Pure."""

from wsgiapp.names import KIND, MANAGED_BY, MANAGED_BY_LABEL
from wsgiapp.types import App, Manifest

from wsgiapp_operator.errors import RequeueAfter
from wsgiapp_operator.state import Issue


class OwnershipConflict(Exception):  # noqa: N818 -- named for the state of the name
    """An object of the resource's name belongs to somebody else."""

    def __init__(self, issue: Issue) -> None:
        super().__init__(issue.message)
        self.issue = issue


def is_owned(live: Manifest, app: App) -> bool:
    return any(owner["uid"] == app.uid for owner in live["metadata"].get("ownerReferences", ()))


def check_owner(app: App, live: Manifest) -> None:
    """Raise unless `live` is the app's, or an orphan of it that may be taken in.

    Raises OwnershipConflict for another's object, RequeueAfter for one that is on its way out: deleted, or left over from a
    WsgiApp of the same name and about to be collected.
    """
    metadata = live["metadata"]
    if "deletionTimestamp" in metadata:
        raise RequeueAfter(f"{live['kind']} {metadata['name']} is being deleted", 1.0)
    if is_owned(live, app):
        return
    owners = [owner for owner in metadata.get("ownerReferences", ()) if owner.get("controller")]
    if owners and owners[0]["kind"] == KIND and owners[0]["name"] == app.name:
        raise RequeueAfter(
            f"{live['kind']} {metadata['name']} of the previous WsgiApp is being deleted", 1.0
        )
    is_ours = (metadata.get("labels") or {}).get(MANAGED_BY_LABEL) == MANAGED_BY
    if owners or not is_ours:
        owner = (
            f"{owners[0]['kind']} {owners[0]['name']}" if owners else "nobody the operator knows"
        )
        raise OwnershipConflict(
            Issue(
                "NameTaken",
                f"{live['kind']} {metadata['name']} exists and belongs to {owner}; "
                "give the WsgiApp another name, or delete that object",
            )
        )
