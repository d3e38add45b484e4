"""The fake API server answers as a real one does; tests/e2e/test_api_contract.py asks that one the same."""

import pytest

from tests.support.api_contract import CHECKS, Check
from tests.unit.operator.fake_cluster import FakeCluster


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_fake_answers_as_an_api_server(check: Check) -> None:
    await check(FakeCluster(), "web")
