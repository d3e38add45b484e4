"""The API server refuses each manifest of tests/negative, naming the field and the remedy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.kube import Kube, KubectlError
from tests.support.operator_release import ROOT, OperatorRelease

MANIFESTS = sorted((ROOT / "tests" / "negative").glob("*.yaml"))


def test_there_are_many() -> None:
    assert len(MANIFESTS) >= 20


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: file.stem)
def test_refused_with_field_and_remedy(file: Path, kube: Kube, operator: OperatorRelease) -> None:
    wanted = dict(re.findall(r"^# (refused|remedy): (.+)$", file.read_text(), re.MULTILINE))
    with pytest.raises(KubectlError) as refusal:
        kube.kubectl("apply", "--dry-run=server", "-n", "default", "-f", str(file))
    said = " ".join(str(refusal.value).split())
    assert wanted["refused"] in said
    assert wanted["remedy"] in said
