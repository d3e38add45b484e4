"""The Secrets that WsgiApps name, and no others: read by name, one at a time (docs/decisions/0025).

They are not listed and not watched, so that the operator needs `get` alone and never sees another one.
What a Secret holds is named by a digest under a key that each app has in a Secret of its own, which the agents
in its pods mount: only keyed digests leave the process. Changes are found by asking again.
"""

import asyncio
import base64
import logging
import os
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wsgiapp.digest import with_key
from wsgiapp.names import APP_LABEL, DIGEST_KEY_FIELD, digest_key_name
from wsgiapp.resources.owned import build_owned
from wsgiapp.types import App, Manifest, Ref

from wsgiapp_operator.cache import AppKey, Cache, Digest, ObjectKey
from wsgiapp_operator.client import ApiError, Cluster
from wsgiapp_operator.errors import RequeueAfter
from wsgiapp_operator.ownership import find_obstacle, is_owned
from wsgiapp_operator.state import Issue

logger = logging.getLogger(__name__)

FORBIDDEN, CONFLICT = 403, 409
KEY_BYTES = 32
POLL_S = 10.0  # each Secret is looked at this often, as long as there are few
MOST_PER_S = 5.0  # with many, this is what the API server is asked
JITTER = (0.5, 1.5)


@dataclass(frozen=True, kw_only=True)
class SecretsSeen:
    """What an app's Secrets hold; those that are not read are in none of the mappings."""

    digests: Mapping[Ref, Digest] = field(default_factory=dict)  # keyed
    plain: Mapping[Ref, str] = field(default_factory=dict)  # for pods of before there were keys
    issue: Issue | None = None  # why some are not read


class NamedSecrets:
    """Reads from one cluster; `is_permitted` says whether the operator was installed to read Secrets."""

    def __init__(self, cluster: Cluster, cache: Cache, *, is_permitted: bool = True) -> None:
        self._cluster = cluster
        self._cache = cache
        self.is_permitted = is_permitted
        self._keys: dict[AppKey, tuple[str, Digest, bytes]] = {}  # uid; the Secret as it was read

    async def read(self, app: App) -> SecretsSeen:
        """Return what the Secrets among the app's contents and `envFrom` hold.

        Raises RequeueAfter while the key's Secret of an earlier WsgiApp is on its way out.
        """
        if app.named_secrets and not self.is_permitted:
            return SecretsSeen(issue=explain_not_permitted(app))
        if not needs_key(app):
            return SecretsSeen()
        try:
            key = await self._read_key(app)
        except ApiError as error:
            if not error.is_refusal:
                raise
            return SecretsSeen(issue=explain_forbidden(digest_key_name(app.name), error))
        if isinstance(key, Issue):
            return SecretsSeen(issue=key)
        return await self._read_all(app, key)

    async def _read_all(self, app: App, key: bytes) -> SecretsSeen:
        digests, plain, issue = {}, {}, None
        for ref in sorted(secrets_to_read(app)):
            try:
                seen = await self._read_one(app.namespace, ref)
            except ApiError as error:
                if error.status != FORBIDDEN:
                    raise
                issue = issue or explain_forbidden(ref.name, error)
                continue
            digests[ref] = seen
            if seen.digest is not None:
                digests[ref] = seen._replace(digest=with_key(seen.digest, key))
                plain[ref] = seen.digest
        return SecretsSeen(digests=digests, plain=plain, issue=issue)

    async def _read_one(self, namespace: str, ref: Ref) -> Digest:
        """Return what a Secret holds; read once, then kept by `poll_forever`."""
        if self._cache.digest(namespace, ref) is None:
            live = await self._cluster.get(ref.kind, namespace, ref.name)
            if live is None:
                self._cache.record_missing(namespace, ref)
            else:
                self._cache.record_content(live)
        return self._cache.digest(namespace, ref) or Digest(0, None)

    # -- the app's key ---------------------------------------------------------------------------

    async def _read_key(self, app: App) -> bytes | Issue:
        """Return the app's key, made where there is none; an Issue where another's Secret has its name."""
        seen = self._cache.digest(app.namespace, key_ref(app))
        app_key = AppKey(app.namespace, app.name)
        uid, read, key = self._keys.get(app_key, ("", None, b""))
        if uid != app.uid:
            key = os.urandom(KEY_BYTES)
        elif seen == read:
            return key
        live = await self._cluster.get("Secret", app.namespace, digest_key_name(app.name))
        if live is None:
            # One that was deleted is made anew as it was: pods have named their contents by it.
            live = await self._make_key(app, key)
        if not is_owned(live, app) and not is_left_over(live, app):
            return explain_obstacle(app, live)
        self._cache.record_content(live)
        found = base64.b64decode((live.get("data") or {}).get(DIGEST_KEY_FIELD, ""))
        if not found:
            return Issue(
                "DigestKeyInvalid",
                f"Secret {live['metadata']['name']} has no field {DIGEST_KEY_FIELD!r}; delete it, and the operator creates a new one",
            )
        read = self._cache.digest(app.namespace, key_ref(app)) or Digest(0, None)
        self._keys[app_key] = app.uid, read, found
        return found

    async def _make_key(self, app: App, key: bytes) -> Manifest:
        data = {DIGEST_KEY_FIELD: base64.b64encode(key).decode()}
        manifest = build_owned(app, "v1", "Secret", type="Opaque", data=data)
        manifest["metadata"]["name"] = digest_key_name(app.name)
        try:
            made = await self._cluster.create(manifest)
        except ApiError as error:
            if error.status != CONFLICT:
                raise
            raise RequeueAfter(f"Secret {digest_key_name(app.name)} is there now", 0.5) from error
        logger.info("digest key made: app=%s/%s", app.namespace, app.name)
        return made

    def forget(self, app: AppKey) -> None:
        self._keys.pop(app, None)

    # -- changes ---------------------------------------------------------------------------------

    async def poll_forever(
        self,
        wake: Callable[[AppKey], Any],
        sleep: Callable[[float], Any] = asyncio.sleep,
    ) -> None:
        """Look at every named Secret again and again, and wake the apps for which one has changed."""
        while True:
            keys = self._cache.referred("Secret")
            random.shuffle(keys)
            if not keys:
                await sleep(POLL_S)
            for key in keys:
                await sleep(pause_between(len(keys)))
                if not self._cache.is_referred(key):  # a round of many Secrets takes minutes
                    continue
                for app in await self._look_at(key):
                    wake(app)

    async def _look_at(self, key: ObjectKey) -> Iterable[AppKey]:
        ref = Ref(key.kind, key.name)
        before = self._cache.digest(key.namespace, ref)
        try:
            live = await self._cluster.get(key.kind, key.namespace, key.name)
        except Exception as error:  # whatever it is, the next round comes
            logger.debug("secret not read: namespace=%s name=%s error=%r", *key[1:], error)
            is_forbidden = isinstance(error, ApiError) and error.status == FORBIDDEN
            return self._cache.forget_content(key) if is_forbidden and before else ()
        if live is not None:
            return self._cache.record_content(live, asked_after=before)
        return self._cache.record_gone(key, before)


def needs_key(app: App) -> bool:
    return bool(app.secret_contents or secrets_to_read(app))


def secrets_to_read(app: App) -> set[Ref]:
    """Return the Secrets whose digest is wanted: not that of TLS, which is looked at for itself."""
    refs = {content.ref for content in app.contents} | set(app.restart_refs.values())
    return {ref for ref in refs if ref.kind == "Secret"}


def key_ref(app: App) -> Ref:
    return Ref("Secret", digest_key_name(app.name))


def is_left_over(live: Manifest, app: App) -> bool:
    """Return whether a Secret is the key that an earlier WsgiApp of the same name has left.

    `kubectl delete --cascade=orphan` leaves it without an owner and with our labels. The pods name their contents
    by it, so it is used as it is: the operator has no permission to change a Secret, or to give it an owner.
    """
    is_labelled = (live["metadata"].get("labels") or {}).get(APP_LABEL) == app.name
    return is_labelled and find_obstacle(app, live) is None


def pause_between(count: int) -> float:
    """Return the seconds between two of `count` Secrets, so that each has its turn about each POLL_S."""
    return max(POLL_S / count, 1 / MOST_PER_S) * random.uniform(*JITTER)


def explain_not_permitted(app: App) -> Issue:
    names = ", ".join(sorted(ref.name for ref in app.named_secrets))
    return Issue(
        "NotPermitted",
        f"the operator is installed without permission to read Secrets (chart value secrets.read is false), so "
        f"it does not see when {names} changes or is missing; after a change run: kubectl rollout restart "
        f"deployment {app.name} --namespace={app.namespace}, or set secrets.read to true",
    )


def explain_forbidden(name: str, error: ApiError) -> Issue:
    return Issue(
        "Forbidden",
        f"the operator may not read or create Secret {name}, so it does not see when that changes: {error.message}; "
        "give its ServiceAccount get and create on Secrets here, and have admission policies admit that, or set the "
        "chart value secrets.read to false",
    )


def explain_obstacle(app: App, live: Manifest) -> Issue:
    """Return whose the Secret of the key's name is. Raises RequeueAfter where it is on its way out."""
    obstacle = find_obstacle(app, live)
    if obstacle is not None and obstacle.reason == "ResourceTerminating":
        raise RequeueAfter(obstacle.message, 1.0)
    name = live["metadata"]["name"]
    return Issue(
        "NameConflict",
        f"Secret {name} already exists and is not this app's, so its other Secrets are not read; delete it, or "
        "give the WsgiApp another name",
    )
