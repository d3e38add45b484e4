"""The Kubernetes API as the operator uses it: dicts in, dicts out, one error type.

The only importer of the kubernetes package, of which it uses the configuration, the credentials and the
transport. Paths come from a fixed table instead of discovery, which would cost requests at every start and a
writable cache file; bodies are plain data and answers that say no are expected, so what the package's models
and exceptions cost each request is spared.
"""

import json
import logging
import os
import re
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Self
from urllib.parse import quote, urlencode
from urllib.request import getproxies

import aiohttp
from kubernetes.aio import client, config
from wsgiapp.names import FIELD_MANAGER, GROUP, KIND, VERSION
from wsgiapp.types import Manifest

logger = logging.getLogger(__name__)
# The package says that it is typed, but these parts of it are not.
untyped_config: Any = config

CLOCKS_DIFFER = timedelta(
    seconds=5
)  # less may come of an answer that took long: its time has whole seconds
PAGE = 50  # a page lies in memory whole, and parsed: ten times as large
PAGE_BYTES = 4 * 2**20  # of several objects; anybody's may have a megabyte, and six of that in JSON
SHRINK = 4
TIMEOUT_S = 20.0
# etcd's words for an object of more than 1.5 MiB, which the API server calls an error of its own (500).
TOO_LARGE = "request is too large"
JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
# kind: (prefix, group, version, plural); a path is prefix/group/version/plural.
KINDS: Mapping[str, tuple[str, str | None, str, str]] = {
    KIND: ("apis", GROUP, VERSION, "wsgiapps"),
    "Deployment": ("apis", "apps", "v1", "deployments"),
    "Service": ("api", None, "v1", "services"),
    "ServiceAccount": ("api", None, "v1", "serviceaccounts"),
    "Ingress": ("apis", "networking.k8s.io", "v1", "ingresses"),
    "IngressClass": ("apis", "networking.k8s.io", "v1", "ingressclasses"),
    "PodDisruptionBudget": ("apis", "policy", "v1", "poddisruptionbudgets"),
    "Pod": ("api", None, "v1", "pods"),
    "ConfigMap": ("api", None, "v1", "configmaps"),
    "Secret": ("api", None, "v1", "secrets"),
    "Event": ("api", None, "v1", "events"),
    "Lease": ("apis", "coordination.k8s.io", "v1", "leases"),
    "Node": ("api", None, "v1", "nodes"),
    "Role": ("apis", "rbac.authorization.k8s.io", "v1", "roles"),
}


class ApiError(Exception):
    """The API server said no; `message` is what it wrote, `causes` are its reasons for programs."""

    def __init__(self, status: int, message: str, causes: tuple[str, ...] = ()) -> None:
        super().__init__(f"{message} (status {status})")
        self.status = status
        self.message = message
        self.causes = causes

    @property
    def is_refusal(self) -> bool:
        """Whether repeating the same request will get the same answer: the object is the problem, or a
        webhook that has to admit it and does not answer."""
        is_of_object = self.status in (400, 403, 413, 422) or TOO_LARGE in self.message
        return is_of_object or self.is_webhook_failure

    @property
    def is_webhook_failure(self) -> bool:
        """Whether an admission webhook did not answer: the API server calls that an error of its own (500)."""
        return self.status == 500 and "failed calling webhook" in self.message


class PageTooLargeError(Exception):
    """A page of a list has more than PAGE_BYTES; it is to be asked for with fewer objects."""


class BoundedResponse(aiohttp.ClientResponse):
    """Reads of a page of a list only what has room, whatever objects the users of the cluster make.

    A page of one object is read whole: the API server bounds objects. Raises PageTooLargeError.
    """

    async def read(self) -> bytes:
        if self._body is None and self.url.query.get("limit", "1") != "1":
            body = bytearray()
            async for chunk in self.content.iter_any():
                body += chunk
                if len(body) > PAGE_BYTES:
                    self.close()
                    raise PageTooLargeError(f"{self.url.path}: more than {PAGE_BYTES} bytes")
            self._body = bytes(body)
        return await super().read()


class Cluster:
    """A connection to one API server."""

    def __init__(self, api: Any) -> None:
        self._api = api
        self._ahead = timedelta()  # the API server's clock, of ours

    @classmethod
    async def connect(cls) -> Self:
        """Connect by the pod's service account, or else by KUBECONFIG or ~/.kube/config."""
        configuration = client.Configuration()
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            untyped_config.load_incluster_config(client_configuration=configuration)
        else:
            await untyped_config.load_kube_config(
                config_file=os.environ.get("KUBECONFIG"), client_configuration=configuration
            )
        # Else each request would look for a netrc file, in a thread; a token or a certificate is what counts.
        configuration.client_session_kwargs = {
            "trust_env": bool(getproxies()),
            "response_class": BoundedResponse,
        }
        return cls(client.ApiClient(configuration))

    def now(self) -> datetime:
        """Return the time by the API server's clock, as far as it differs from ours.

        What this operator stamps is read by one on another node, and what controllers stamp is read by it.
        """
        return datetime.now(UTC) + self._ahead

    def _follow_clock(self, date: str | None) -> None:
        try:
            ahead = parsedate_to_datetime(date or "") - datetime.now(UTC)
        except (ValueError, TypeError):
            return
        self._ahead = ahead if abs(ahead) > CLOCKS_DIFFER else timedelta()

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """What every connection is checked by; it learns of a new CA while it is in use."""
        context: ssl.SSLContext = self._api.rest_client.ssl_context
        return context

    def _read_ca(self) -> None:
        """Trust what the CA file holds now, besides what it held before: it is replaced when the CA is rotated."""
        path = self._api.configuration.ssl_ca_cert
        try:
            if path is not None:
                self.ssl_context.load_verify_locations(path)
        except (OSError, ssl.SSLError) as error:
            logger.warning("CA file not read: file=%s error=%s", path, error)

    async def close(self) -> None:
        await self._api.close()

    async def get(self, kind: str, namespace: str | None, name: str) -> Manifest | None:
        """Return the object, or None where there is none; `namespace` is None for a kind that has none."""
        try:
            return await self._send("GET", path_of(kind, namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(
        self,
        kind: str,
        namespace: str | None,
        label_selector: str | None = None,
        *,
        metadata_only: bool = False,
    ) -> AsyncIterator[Manifest]:
        """Yield all objects of a kind, page by page; `namespace` None is all namespaces.

        With `metadata_only` the API server sends nothing else of them. Where objects are large, a page has fewer.
        """
        token, limit = None, PAGE
        _, group, version, _ = KINDS[kind]
        named = {"apiVersion": f"{group}/{version}" if group else version, "kind": kind}
        while True:
            try:
                page = await self._send(
                    "GET",
                    path_of(kind, namespace),
                    query={"labelSelector": label_selector, "limit": limit, "continue": token},
                    accept=METADATA_ONLY if metadata_only else JSON,
                )
            except PageTooLargeError:
                limit = max(1, limit // SHRINK)
                continue
            for item in page["items"]:
                yield {**item, **named}
            token = page["metadata"].get("continue")
            if not token:
                return
            limit = min(PAGE, 2 * limit)

    async def apply(self, manifest: Manifest, *, force: bool) -> Manifest:
        """Apply by server-side apply; other managers' fields stay.

        With `force` the operator's fields win; without it, as for an object that is to be created, a
        field of another manager is a conflict (409). A `metadata.uid` that is not the object's is refused: 422.
        """
        return await self._apply(path_to(manifest), manifest, force=force)

    async def apply_status(self, manifest: Manifest) -> Manifest:
        """Apply the status of a WsgiApp; a stale `metadata.resourceVersion` is refused (409), a wrong uid is not."""
        return await self._apply(f"{path_to(manifest)}/status", manifest, force=True)

    async def _apply(self, path: str, manifest: Manifest, *, force: bool) -> Manifest:
        query = {"fieldManager": FIELD_MANAGER, "force": "true" if force else "false"}
        return await self._send("PATCH", path, query=query, body=manifest, content_type=APPLY_PATCH)

    async def merge(self, kind: str, namespace: str, name: str, patch: Manifest) -> Manifest:
        """Change some fields by a JSON merge patch (RFC 7386)."""
        return await self._send(
            "PATCH", path_of(kind, namespace, name), query={"fieldManager": FIELD_MANAGER},
            body=patch, content_type=MERGE_PATCH,
        )  # fmt: skip

    async def create(self, manifest: Manifest) -> Manifest:
        path = path_of(manifest["kind"], manifest["metadata"]["namespace"])
        return await self._send("POST", path, body=manifest)

    async def replace(self, manifest: Manifest) -> Manifest:
        """Replace the object; 409 when it was changed since it was read."""
        return await self._send("PUT", path_to(manifest), body=manifest)

    async def delete(self, manifest: Manifest) -> None:
        """Delete exactly this object, not a namesake made later; already gone is fine."""
        uid = manifest["metadata"]["uid"]
        options = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            await self._send("DELETE", path_to(manifest), body=options)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def read_version(self) -> tuple[int, int]:
        """Return Kubernetes' (major, minor)."""
        version = await self._send("GET", "/version")
        try:
            return int(version["major"]), int(version["minor"].rstrip("+"))
        except (KeyError, ValueError, AttributeError, TypeError):
            raise ApiError(200, f"/version says {str(version)[:200]}") from None

    async def list_kubelet_versions(self) -> Sequence[tuple[int, int]]:
        """Return the (major, minor) of every node's kubelet, such as (1, 35) for v1.35.2-gke.100."""
        seen = [read_kubelet_version(node) async for node in self.list("Node", None)]
        return [version for version in seen if version is not None]

    async def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Manifest | None = None,
        content_type: str = JSON,
        accept: str = JSON,
    ) -> Manifest:
        """Return the answer's body; items of `query` that are None are left out. Raises ApiError.

        The token is read from its file again each minute, by the package.
        """
        configuration, transport = self._api.configuration, self._api.rest_client
        headers = {**self._api.default_headers, "Accept": accept, "Content-Type": content_type}
        if bearer := (await configuration.auth_settings()).get("BearerToken"):
            headers[bearer["key"]] = bearer["value"]
        given = {name: value for name, value in (query or {}).items() if value is not None}
        url = f"{configuration.host}{path}{'?' if given else ''}{urlencode(given)}"
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        try:
            answer = await transport.request(
                method, url, headers=headers, body=body, _request_timeout=timeout
            )
        except aiohttp.ClientConnectorCertificateError:
            self._read_ca()  # for the next try, and for the watches
            raise
        self._follow_clock(answer.headers.get("Date"))
        text = await answer.read()
        if not 200 <= answer.status <= 299:
            raise read_error(answer.status, answer.reason, text)
        return read_body(answer.status, text)


def path_of(kind: str, namespace: str | None, name: str | None = None) -> str:
    """Return the path of an object, or of all objects of a kind, in a namespace or (None) in all."""
    prefix, group, version, plural = KINDS[kind]
    within = namespace and f"namespaces/{quote(namespace, safe='')}"
    parts = (prefix, group, version, within, plural, name and quote(name, safe=""))
    return "".join(f"/{part}" for part in parts if part)


def path_to(manifest: Manifest) -> str:
    metadata = manifest["metadata"]
    return path_of(manifest["kind"], metadata["namespace"], metadata["name"])


def read_kubelet_version(node: Manifest) -> tuple[int, int] | None:
    """Return (major, minor), or None for a node whose kubelet has not said it yet."""
    info = (node.get("status") or {}).get("nodeInfo") or {}
    found = re.match(r"v?(\d+)\.(\d+)", info.get("kubeletVersion", ""))
    return (int(found[1]), int(found[2])) if found else None


def read_body(status: int, text: bytes) -> Manifest:
    """Return the object in an answer. Raises ApiError where there is none, as in a proxy's page."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        start = text[:100].decode(errors="replace")
        raise ApiError(status, f"the answer is not a JSON object: {start!r}")
    return found


def read_error(status: int, reason: str | None, text: bytes) -> ApiError:
    """Return what the API server's Status object says, or what there is without one."""
    body = text.decode(errors="replace")
    try:
        said = json.loads(body)
        causes = (said.get("details") or {}).get("causes") or ()
        reasons = tuple(str(cause.get("reason", "")) for cause in causes)
        return ApiError(status, str(said["message"]), reasons)
    except (ValueError, KeyError, TypeError, AttributeError):
        return ApiError(status, body or str(reason))
