"""Whether a live object has what is wanted, as server-side apply would leave it. Pure."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from wsgiapp.digest import digest_json
from wsgiapp.names import APPLIED_ANNOTATION
from wsgiapp.types import Manifest

# By the list's field: the key by which server-side apply merges its items. `ports` have another one in a
# Service than in a container; items without the key, and all other lists, are compared as a whole.
MERGE_KEYS = {
    "containers": ("name",), "initContainers": ("name",), "volumes": ("name",), "env": ("name",),
    "imagePullSecrets": ("name",), "ownerReferences": ("uid",), "volumeMounts": ("mountPath",),
    "ports": ("containerPort", "port"), "conditions": ("type",),
}  # fmt: skip
# Maps and lists that are replaced as a whole.
ATOMIC = frozenset({"selector", "matchLabels", "tls"})
SUFFIXES = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    "k": Decimal("1e3"), "M": Decimal("1e6"), "G": Decimal("1e9"), "T": Decimal("1e12"),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
}  # fmt: skip


def with_applied_hash(manifest: Manifest) -> Manifest:
    """Return the manifest with its own hash, which tells later whether the wanted object changed."""
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), APPLIED_ANNOTATION: digest_json(manifest)}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def is_subset(live: Any, wanted: Any, key: str = "") -> bool:
    """Return whether `live` has every field of `wanted`, as server-side apply would leave it.

    Fields of other managers are theirs and do not count. What the API server leaves out when empty, and
    quantities that it writes in another form, count as equal.
    """
    if isinstance(wanted, dict) and isinstance(live, dict):
        if key in ATOMIC and wanted.keys() != live.keys():
            return False
        # Below requests and limits every value is a quantity, whatever its name.
        below = key if key in ("requests", "limits") else None
        return all(
            is_subset(live[name], value, below or name) if name in live else not value
            for name, value in wanted.items()
        )
    if isinstance(wanted, list) and isinstance(live, list):
        return is_subset_of_items(live, wanted, key)
    if key in ("requests", "limits", "sizeLimit", "divisor"):
        return parse_quantity(live) == parse_quantity(wanted)
    return bool(live == wanted)


def is_subset_of_items(live: list[Any], wanted: list[Any], key: str) -> bool:
    """Compare lists as apply merges them: by the items' key where there is one, else as a whole."""
    merge_key = next(
        (
            k
            for k in MERGE_KEYS.get(key, ())
            if wanted and all(isinstance(i, dict) and k in i for i in wanted)
        ),
        None,
    )
    if merge_key is None or key in ATOMIC:
        return len(live) == len(wanted) and all(map(is_subset, live, wanted))
    by_key = {identify(item, merge_key): item for item in live}
    return all(
        (name := identify(item, merge_key)) in by_key and is_subset(by_key[name], item)
        for item in wanted
    )


def identify(item: Mapping[str, Any], merge_key: str) -> tuple[Any, str]:
    """Return what names an item of a list: a port of TCP and one of UDP may have the same number."""
    is_port = merge_key in MERGE_KEYS["ports"]
    return item.get(merge_key), item.get("protocol", "TCP") if is_port else ""


def parse_quantity(value: Any) -> Decimal | str:
    """Return a Kubernetes quantity as a number; what is none is returned as text."""
    text = str(value)
    digits = text.rstrip("numkKMGTPEi")
    try:
        return Decimal(digits) * SUFFIXES[text[len(digits) :]]
    except (InvalidOperation, KeyError):
        return text
