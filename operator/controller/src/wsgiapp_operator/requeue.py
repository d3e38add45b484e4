"""When an app is looked at again though nothing was reported of it. Pure.

Whatever must lead to a reconcile has a watch; a look without an event repairs what a watch has missed, and
sees what no watch shows: an agent's reason for not being ready, a foreign object that was in the way and
went. The longer nothing has changed, the longer the pause, so that apps that wait cost hardly more than
those that are settled (docs/decisions/0024).
"""

import random
from collections.abc import Sequence

from wsgiapp.types import App

from wsgiapp_operator.reload import ReloadPlan, ReloadState
from wsgiapp_operator.state import Issue, Observed

POLL_S = 0.5  # agents report the end of a reload only when asked
LONGEST_POLL_S = 5.0
POLL_SHARE = 0.1  # of how long a step of a reload has lasted: one of an hour may end a little later
SETTLE_S = 2.0  # a ready pod's agent does not answer, or a resource is on its way out
LONGEST_SILENT_WAIT_S = 30.0  # an agent refuses connections: nothing reports when it answers again
FIRST_WAIT_S = 5.0
UNREADY_GROWTH = (
    4.0  # that a pod becomes ready is reported: a look shows at most another reason why it is not
)
# Something foreign stands in the way, or a finalizer: a person takes it away, and nothing reports that.
LONGEST_BLOCKED_WAIT_S = 60.0
LONGEST_WAIT_S = 300.0
RESYNC_S = 1800.0
EARLY_S = 20.0  # a pod that starts: why it is not ready is soon another thing
MOST_LOOKS_PER_S = 0.25  # at all settled apps, and at all whose pods stay unready: each costs some 10 ms of CPU time
JITTER = 0.25  # of each pause, either way: apps that start together do not stay together


def requeue_after(
    app: App,
    observed: Observed,
    plan: ReloadPlan,
    issues: Sequence[Issue],
    *,
    silent_s: float,
    quiet_s: float,
    is_kept: bool,
    apps: int,
    unready: int,
) -> float:
    """Return the seconds until the next look.

    `silent_s` is when a silent agent is next worth asking, `quiet_s` for how long the app's status has said
    the same, `is_kept` whether the newest contents are the last good ones. Of all `apps` so many are `unready`.
    """
    if plan.is_running:
        return min(max(quiet_s * POLL_SHARE, POLL_S), LONGEST_POLL_S)
    if any(issue.reason == "ResourceTerminating" for issue in issues):
        return min(max(quiet_s, SETTLE_S), LONGEST_BLOCKED_WAIT_S)
    if plan.count(ReloadState.SILENT):
        return max(silent_s, min(max(quiet_s, SETTLE_S), LONGEST_SILENT_WAIT_S))
    if is_settled(app, observed, plan, is_kept=is_kept) and not issues:
        return jittered(max(RESYNC_S, apps / MOST_LOOKS_PER_S))
    longest_s = LONGEST_BLOCKED_WAIT_S if issues else LONGEST_WAIT_S
    if issues or is_whole(app, observed):
        return jittered(min(max(quiet_s, FIRST_WAIT_S), longest_s))
    shared_s = unready / MOST_LOOKS_PER_S if quiet_s >= EARLY_S else 0.0
    return jittered(max(min(max(quiet_s * UNREADY_GROWTH, FIRST_WAIT_S), longest_s), shared_s))


def is_settled(app: App, observed: Observed, plan: ReloadPlan, *, is_kept: bool) -> bool:
    """Return whether nothing is left to happen that only an agent or the time tells.

    After a failed reload a pod may take the content late, which its agent knows alone. A policy that refuses the
    key of an app's Secrets may be lifted; what the operator is installed without comes by a restart.
    """
    unread = observed.secrets_issue
    is_read = unread is None or unread.reason == "NotPermitted"
    is_loaded = plan.failure is None and plan.count(ReloadState.CURRENT) == len(plan.states)
    return is_whole(app, observed) and is_loaded and is_read and (is_kept or app.replicas == 0)


def is_whole(app: App, observed: Observed) -> bool:
    """Return whether as many pods as are declared are ready."""
    return sum(pod.ready for pod in observed.pods) >= app.replicas


def jittered(pause_s: float) -> float:
    return pause_s * random.uniform(1 - JITTER, 1 + JITTER)
