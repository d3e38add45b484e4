"""Which version of each content a start of the server loads. Pure.

The operator keeps a copy of the contents that all pods of the app served healthily last. A pod boots these,
and newer ones come to it by a reload, so that a change that does not work harms no pod that starts.
"""

import json
from collections.abc import Collection, Mapping
from typing import NamedTuple


class Copy(NamedTuple):
    """A last good copy: the digest of its content, and what the operator has added to it."""

    digest: str
    mark: bytes


def read_last_good(copies: Mapping[str, Copy], revision: str) -> dict[str, str] | None:
    """Return the digests of the copies where they may be booted; `copies` is by content.

    They have to be good for this revision of the app's pods, and to belong together: each names all
    contents that were good at the same time. None while a set is being written, and before the first.
    """
    found = {name: copy.digest for name, copy in copies.items()}
    for copy in copies.values():
        try:
            good = json.loads(copy.mark)
            is_good = good["revision"] == revision and good["contents"] == found
        except (ValueError, KeyError, TypeError):
            return None
        if not is_good:
            return None
    return found or None


def choose_boot(
    last_good: Mapping[str, str] | None,
    served: Mapping[str, str],
    mounted: dict[str, str],
    copied: Collection[str],
) -> dict[str, str]:
    """Return the digest of each content that a start of the server loads.

    The last good one; before there is one, what has served in this pod; before that, what is mounted. A
    content of which no copy is kept, as a Secret, is loaded as it is mounted: an old credential is of no use.
    Of one that is not to be had, mounted or not, nothing is in the answer.
    """
    older = last_good if last_good is not None else served
    return mounted | {name: older[name] for name in copied if name in older}
