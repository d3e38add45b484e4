"""The Kubernetes API as the operator uses it: dicts in, dicts out, one error type.

The only importer of the kubernetes package. Paths come from a fixed table instead of discovery, which
would cost requests at every start and a writable cache file.
"""

import json
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Self

from kubernetes.aio import client, config, dynamic
from kubernetes.aio.dynamic.exceptions import DynamicApiError
from wsgiapp.names import FIELD_MANAGER, GROUP, KIND, VERSION
from wsgiapp.types import Manifest

# The package says that it is typed, but these parts of it are not.
untyped_config: Any = config
untyped_dynamic: Any = dynamic

PAGE = 50  # a page lies in memory whole, and parsed: ten times as large
TIMEOUT_S = 20.0
METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
# kind: (prefix, group, version, plural); a path is prefix/group/version/plural.
KINDS: Mapping[str, tuple[str, str | None, str, str]] = {
    KIND: ("apis", GROUP, VERSION, "wsgiapps"),
    "Deployment": ("apis", "apps", "v1", "deployments"),
    "Service": ("api", None, "v1", "services"),
    "ServiceAccount": ("api", None, "v1", "serviceaccounts"),
    "Ingress": ("apis", "networking.k8s.io", "v1", "ingresses"),
    "PodDisruptionBudget": ("apis", "policy", "v1", "poddisruptionbudgets"),
    "Pod": ("api", None, "v1", "pods"),
    "ConfigMap": ("api", None, "v1", "configmaps"),
    "Secret": ("api", None, "v1", "secrets"),
    "Event": ("api", None, "v1", "events"),
    "Lease": ("apis", "coordination.k8s.io", "v1", "leases"),
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
        return self.status in (400, 403, 422) or self.is_webhook_failure

    @property
    def is_webhook_failure(self) -> bool:
        """Whether an admission webhook did not answer: the API server calls that an error of its own (500)."""
        return self.status == 500 and "failed calling webhook" in self.message


class Cluster:
    """A connection to one API server."""

    def __init__(self, api: Any) -> None:
        self._api = api
        self._client = untyped_dynamic.DynamicClient(api)
        self._resources = {
            kind: untyped_dynamic.Resource(
                prefix=prefix, group=group, api_version=version, kind=kind, name=plural,
                namespaced=True, client=self._client,
            )
            for kind, (prefix, group, version, plural) in KINDS.items()
        }  # fmt: skip

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
        return cls(client.ApiClient(configuration))

    async def close(self) -> None:
        await self._api.close()

    async def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        """Return the object, or None where there is none."""
        try:
            return await self._call("get", kind, namespace=namespace, name=name)
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

        With `metadata_only` the API server sends nothing else of them.
        """
        token = None
        api_version = self._resources[kind].group_version
        while True:
            page = await self._call(
                "get",
                kind,
                namespace=namespace,
                label_selector=label_selector,
                limit=PAGE,
                _continue=token,
                header_params={"Accept": METADATA_ONLY} if metadata_only else {},
            )
            for item in page["items"]:
                yield {**item, "apiVersion": api_version, "kind": kind}
            token = page["metadata"].get("continue")
            if not token:
                return

    async def apply(self, manifest: Manifest, *, force: bool) -> Manifest:
        """Apply by server-side apply; other managers' fields stay.

        With `force` the operator's fields win; without it, as for an object that is to be created, a
        field of another manager is a conflict (409). A `metadata.uid` that is not the object's is refused: 422.
        """
        metadata = manifest["metadata"]
        return await self._call(
            "server_side_apply", manifest["kind"], body=manifest,
            namespace=metadata["namespace"], name=metadata["name"],
            field_manager=FIELD_MANAGER, force_conflicts=force,
        )  # fmt: skip

    async def apply_status(self, manifest: Manifest) -> Manifest:
        """Apply the status of a WsgiApp; a stale `metadata.resourceVersion` is refused (409), a wrong uid is not."""
        metadata = manifest["metadata"]
        resource = self._resources[manifest["kind"]]
        path = resource.path(name=metadata["name"], namespace=metadata["namespace"]) + "/status"
        return await self._request(
            "patch", path, body=manifest, content_type="application/apply-patch+yaml",
            field_manager=FIELD_MANAGER, force_conflicts=True,
        )  # fmt: skip

    async def merge(self, kind: str, namespace: str, name: str, patch: Manifest) -> Manifest:
        """Change some fields by a JSON merge patch (RFC 7386)."""
        return await self._call(
            "patch", kind, body=patch, namespace=namespace, name=name,
            content_type="application/merge-patch+json", field_manager=FIELD_MANAGER,
        )  # fmt: skip

    async def create(self, manifest: Manifest) -> Manifest:
        namespace = manifest["metadata"]["namespace"]
        return await self._call("create", manifest["kind"], body=manifest, namespace=namespace)

    async def replace(self, manifest: Manifest) -> Manifest:
        """Replace the object; 409 when it was changed since it was read."""
        metadata = manifest["metadata"]
        return await self._call(
            "replace",
            manifest["kind"],
            body=manifest,
            namespace=metadata["namespace"],
            name=metadata["name"],
        )

    async def delete(self, manifest: Manifest) -> None:
        """Delete exactly this object, not a namesake made later; already gone is fine."""
        metadata = manifest["metadata"]
        options = {"preconditions": {"uid": metadata["uid"]}, "propagationPolicy": "Background"}
        try:
            await self._call(
                "delete",
                manifest["kind"],
                body=options,
                namespace=metadata["namespace"],
                name=metadata["name"],
            )
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def read_version(self) -> tuple[int, int]:
        """Return Kubernetes' (major, minor)."""
        version = await self._request("get", "/version")
        return int(version["major"]), int(version["minor"].rstrip("+"))

    async def list_kubelet_versions(self) -> Sequence[tuple[int, int]]:
        """Return the (major, minor) of every node's kubelet, such as (1, 35) for v1.35.2-gke.100."""
        page = await self._request("get", "/api/v1/nodes")
        return [
            version for node in page["items"] if (version := read_kubelet_version(node)) is not None
        ]

    async def _call(self, verb: str, kind: str, **arguments: Any) -> Manifest:
        return await self._translate(
            getattr(self._client, verb), self._resources[kind], **arguments
        )

    async def _request(self, method: str, path: str, **arguments: Any) -> Manifest:
        return await self._translate(self._client.request, method, path, **arguments)

    async def _translate(self, function: Any, *arguments: Any, **options: Any) -> Manifest:
        try:
            answer: Manifest = await function(
                *arguments, **options, serializer=lambda _, data: data, _request_timeout=TIMEOUT_S
            )
        except DynamicApiError as error:
            raise read_error(error) from error
        return answer


def read_kubelet_version(node: Manifest) -> tuple[int, int] | None:
    """Return (major, minor), or None for a node whose kubelet has not said it yet."""
    info = (node.get("status") or {}).get("nodeInfo") or {}
    found = re.match(r"v?(\d+)\.(\d+)", info.get("kubeletVersion", ""))
    return (int(found[1]), int(found[2])) if found else None


def read_error(error: DynamicApiError) -> ApiError:
    """Return what the API server's Status object says, or what there is without one."""
    body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else error.body
    try:
        status = json.loads(body or "")
        causes = (status.get("details") or {}).get("causes") or ()
        reasons = tuple(str(cause.get("reason", "")) for cause in causes)
        return ApiError(error.status or 0, str(status["message"]), reasons)
    except (ValueError, KeyError, TypeError, AttributeError):
        return ApiError(error.status or 0, str(body or error.reason))
