"""The real helm, from the local cluster's cache; fetched there when it is missing."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts.generate import CHART, NAMESPACE, find_helm
from tests.cluster.golang import download_module
from tests.cluster.packages import install_helm3, install_kubectl_and_helm
from tests.cluster.paths import Paths

Objects = list[dict[str, Any]]


@pytest.fixture(scope="session")
def helm() -> str:
    """Return the path of a helm binary."""
    found = find_helm()
    if found is None:
        install_kubectl_and_helm(Paths.from_environ())
        found = find_helm()
    assert found is not None
    return found


@pytest.fixture(scope="session")
def helm3() -> str:
    """Return the path of the oldest helm that the chart is tried with."""
    return str(install_helm3(Paths.from_environ()))


class Refused(Exception):  # noqa: N818 -- named for what helm did
    """Helm would not render; the text is what it said."""


@pytest.fixture(scope="session")
def render(helm: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Objects]:
    """Return render(values, release=…, chart=…, program=…): the objects, or Refused."""

    def render(
        values: dict[str, Any] | None = None,
        *,
        release: str = "wsgiapp-operator",
        chart: Path = CHART,
        program: str = helm,
    ) -> Objects:
        file = tmp_path_factory.mktemp("values") / "values.yaml"
        file.write_text(yaml.safe_dump(values or {}))
        done = subprocess.run(
            [
                program,
                "template",
                release,
                str(chart),
                "--namespace",
                NAMESPACE,
                "-f",
                str(file),
                "--kube-version=1.34.0",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise Refused(done.stderr)
        return [each for each in yaml.safe_load_all(done.stdout) if each]

    return render


@pytest.fixture(scope="session")
def monitoring_schemas() -> dict[str, Any]:
    """Return the Prometheus Operator's schemas by kind; what they do not name is refused."""
    module = download_module("prometheus-operator", Paths.from_environ())
    folder, schemas = module / "example" / "prometheus-operator-crd", {}
    for kinds in ("podmonitors", "servicemonitors", "prometheusrules"):
        crd = yaml.safe_load((folder / f"monitoring.coreos.com_{kinds}.yaml").read_text())
        version = next(v for v in crd["spec"]["versions"] if v["name"].startswith("v1"))
        schemas[crd["spec"]["names"]["kind"]] = refuse_unknown(version["schema"]["openAPIV3Schema"])
    return schemas


def refuse_unknown(schema: Any) -> Any:
    """Return a CRD's schema in which an unknown field is an error, as with `kubectl apply --validate=strict`."""
    if isinstance(schema, list):
        return [refuse_unknown(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    # Go's regular expressions may begin with a flag anywhere, Python's may not.
    inner = {
        key: value.replace("^(?i)", "(?i)^")
        if key == "pattern" and isinstance(value, str)
        else refuse_unknown(value)
        for key, value in schema.items()
    }
    is_closed = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if is_closed and schema["properties"] and "additionalProperties" not in schema:
        inner["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    return inner


@pytest.fixture
def chart_copy(tmp_path: Path) -> Path:
    """Return a copy of the chart that a test may change."""
    return Path(shutil.copytree(CHART, tmp_path / "wsgiapp-operator"))
