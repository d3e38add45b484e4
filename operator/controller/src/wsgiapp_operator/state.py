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


class Issue(NamedTuple):
    """Why a pod does not serve: one word for programs, and what a person can act on."""

    reason: str
    message: str


class ReloadRequest(NamedTuple):
    """A reload that a pod was asked for (docs/contracts.md §5)."""

    id: str
    content: Mapping[str, str]


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
    ready_changed_at: datetime | None = None  # when it became ready, or unready
    ended_at: datetime | None = None  # when the app's container ended last by itself
    stopped_at: datetime | None = None  # when it was last stopped, or lost sight of
    has_failed: bool = False  # ended for good, and not by another's doing
    copies: frozenset[str] = frozenset()  # the last good copies that it mounts, by name
    has_key: bool = False  # the app's key is mounted in its agent
    agent: AgentStatus | None = None

    @property
    def has_no_node(self) -> bool:
        return self.issue is not None and self.issue.reason == "Unschedulable"

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
