"""A Secret that cannot serve HTTPS is named with its fault and the remedy."""

from base64 import b64encode

import pytest
from wsgiapp.types import Manifest
from wsgiapp_operator.client import ApiError
from wsgiapp_operator.tls import find_tls_fault

from tests.support.certificate import make_certificate
from tests.unit.operator.test_routes import Town

CRT, KEY = make_certificate("shop.example.com")
_, OTHER = make_certificate("shop.example.com")


def secret(
    crt: bytes = CRT, key: bytes = KEY, kind: str = "kubernetes.io/tls"
) -> dict[str, object]:
    data = {"tls.crt": b64encode(crt).decode(), "tls.key": b64encode(key).decode()}
    metadata = {"name": "shop-tls", "namespace": "web"}
    return {"kind": "Secret", "type": kind, "metadata": metadata, "data": data}


def test_certificate_with_its_key_is_good() -> None:
    assert find_tls_fault(secret()) is None


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (None, "does not exist"),
        (secret(kind="Opaque"), "is of type Opaque and not kubernetes.io/tls"),
        ({**secret(), "data": {"tls.crt": ""}}, "lacks tls.crt or tls.key"),
        (secret(key=OTHER), "do not belong together"),
        (secret(crt=b"certificate", key=b"key"), "are not PEM"),
    ],
)
def test_wrong_secret_is_told_by_its_fault(wrong: dict[str, object] | None, fault: str) -> None:
    assert fault in (find_tls_fault(wrong) or "")


async def test_missing_and_wrong_secrets_are_conditions_until_they_are_good() -> None:
    town = Town()
    town.declare("one", tls={"secretName": "shop-tls"})
    await town.settle()
    state, reason, message = town.routed("one")
    assert (state, reason) == ("False", "TLSSecretMissing")
    assert "kubectl create secret tls shop-tls" in message
    stored = town.see(secret(key=OTHER))
    await town.settle()
    assert town.routed("one")[1] == "TLSSecretInvalid"
    town.see({**stored, "data": secret()["data"]})
    await town.settle()
    assert town.routed("one")[0] == "True"
    assert town.status("one")["url"] == "https://shop.example.com/"


async def test_secret_is_read_once_for_each_change() -> None:
    town = Town()
    town.see(secret())
    town.declare("one", tls={"secretName": "shop-tls"})
    await town.settle()
    town.cluster.objects.pop(("Secret", "web", "shop-tls"))
    town.due = set(town.cache.apps())
    await town.settle()
    assert town.routed("one")[0] == "True"


async def test_secret_that_may_not_be_read_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    town = Town()
    get = town.cluster.get

    async def forbid_secrets(kind: str, namespace: str, name: str) -> Manifest | None:
        if kind == "Secret":
            raise ApiError(403, "secrets is forbidden")
        return await get(kind, namespace, name)

    monkeypatch.setattr(town.cluster, "get", forbid_secrets)
    town.declare("one", tls={"secretName": "shop-tls"})
    await town.settle()
    assert town.routed("one")[0] == "True"
