"""The API server refuses wrong manifests with the field and the remedy; nothing is stored.

Each file in tests/negative says in its first lines which field is refused and what the message says.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.kube import Kube, KubectlError
from tests.support.operator_release import ROOT, OperatorRelease

MANIFESTS = sorted((ROOT / "tests" / "negative").glob("*.yaml"))


def _read_comment(text: str, name: str) -> str:
    found = re.search(rf"^# {name}: (.+)$", text, re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_wrong_manifest_is_refused_with_field_and_remedy(
    path: Path, kube: Kube, operator: OperatorRelease
) -> None:
    text = path.read_text("utf-8")
    with pytest.raises(KubectlError) as refused:
        kube.kubectl("apply", "--dry-run=server", "-n", "default", "-f", str(path))
    message = " ".join(str(refused.value).split())
    assert _read_comment(text, "refused") in message
    assert _read_comment(text, "remedy") in message
