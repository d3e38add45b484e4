"""What is observed of one app, as frozen values: the ground of planning and of the status.

Knows the shape of pods and of agents' answers, not where they come from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from wsgiapp.types import Manifest, Ref

from wsgiapp_operator.cache import Digest
from wsgiapp_operator.routes import HostRoute

NO_CLASS = (
    "IngressClassMissing"  # the reason where no ingress controller can know that an app is its own
)
UPGRADE_FAILED = "UpgradeFailed"  # the reason of the app at which an upgrade of all stops


class Issue(NamedTuple):
    """Why a pod does not serve: one word for programs, and what a person can act on."""

    reason: str
    message: str


class ReloadRequest(NamedTuple):
    """A reload that a pod was asked for (docs/contracts.md §5)."""

    id: str
    content: Mapping[str, str]


class End(NamedTuple):
    """How the app's container ended last. `by_itself` where nothing else than what ran in it can be the reason."""

    container: str  # the id of the container, which is another after each start
    by_itself: bool


class Before(NamedTuple):
    """How a pod was when it was asked to reload.

    What has happened since is told by comparing this with how it is now, without the clock of its node.
    """

    end: str  # the container that had ended last, empty for none
    ready: bool
    ready_changed: str
    is_second: bool  # it was asked the same before, and its container ended then


class AgentReload(NamedTuple):
    id: str
    result: str  # pending, running, succeeded, failed
    message: str

    @property
    def is_finished(self) -> bool:
        return self.result in ("succeeded", "failed")


@dataclass(frozen=True, kw_only=True)
class AgentStatus:
    """What a pod's agent says of its server."""

    state: str
    content: Mapping[str, str]
    workers_desired: int
    workers_ready: int
    workers_busy: int
    reload: AgentReload | None
    is_keyed: bool = True  # it names what Secrets hold by the app's key, where it has one
    unready: str = ""  # the agent's reason, where /readyz says no
    steady_s: float = 0.0  # for how long it has answered so: same content, same reload, ready


@dataclass(frozen=True, kw_only=True)
class Pod:
    """One pod of the app; `terminating` where it is on its way out, or has ended."""

    name: str
    uid: str
    ip: str | None
    template: str | None
    ready: bool
    terminating: bool
    request: ReloadRequest | None
    requested_at: datetime | None
    issue: Issue | None
    contents: Mapping[str, Ref]  # what it mounts, by the content's name
    before: Before | None = None  # None: nobody has asked it, or an older operator has
    ready_changed: str = (
        ""  # when it became ready, or unready, by its node's clock: to tell two times apart
    )
    end: End | None = None
    has_failed: bool = False  # ended for good, and not by another's doing
    copies: frozenset[str] = frozenset()  # the last good copies that it mounts, by name
    has_key: bool = False  # the app's key is mounted in its agent
    agent: AgentStatus | None = None

    @property
    def has_no_node(self) -> bool:
        return self.issue is not None and self.issue.reason == "Unschedulable"

    @property
    def has_ended(self) -> bool:
        """Whether the app's container has ended since the pod was asked."""
        return (
            self.before is not None
            and self.end is not None
            and self.end.container != self.before.end
        )

    @property
    def has_crashed(self) -> bool:
        """Whether it has ended since then, and nothing else than what ran in it can be the reason."""
        return self.has_ended and self.end is not None and self.end.by_itself

    def has_been_ready(self, least_s: float) -> bool:
        """Return whether it has been seen ready with what it serves for so long, by kubelet and agent."""
        agent = self.agent
        return self.ready and agent is not None and not agent.unready and agent.steady_s >= least_s

    @property
    def has_lost_readiness(self) -> bool:
        """Whether the pod has been ready since it was asked, or was then, and is not any more."""
        if self.ready or self.before is None:
            return False
        return self.before.ready or self.before.ready_changed != self.ready_changed

    @property
    def names_by_key(self) -> bool:
        """Whether its agent names what Secrets hold by the app's key; one of an older, pinned version does not."""
        return self.has_key and (self.agent is None or self.agent.is_keyed)


@dataclass(frozen=True, kw_only=True)
class Observed:
    """Everything that planning and status rest on."""

    status: Manifest
    owned: Mapping[str, Manifest]
    pods: tuple[Pod, ...]
    digests: Mapping[Ref, Digest]
    routes: tuple[HostRoute, ...] = ()
    tls_fault: str | None = None  # what is the matter with the Secret of spec.ingress.tls
    is_class_missing: bool = False  # the IngressClass that spec.ingress names does not exist
    env_digests: Mapping[Ref, Digest] = field(default_factory=dict)  # of `envFrom`, restarting
    plain_digests: Mapping[Ref, str] = field(default_factory=dict)  # of Secrets; never shown
    secrets_issue: Issue | None = (
        None  # why some Secrets are not read: they are not in `digests` then
    )
    copies: Mapping[str, Digest] = field(default_factory=dict)  # last good ones, by content

    @property
    def missing(self) -> tuple[Ref, ...]:
        """Return the ConfigMaps and Secrets that do not exist."""
        return tuple(ref for ref, seen in self.digests.items() if seen.digest is None)
