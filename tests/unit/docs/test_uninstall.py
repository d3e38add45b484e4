"""What the page about uninstalling deletes is all that the plain installation made, but for the CRD."""

from __future__ import annotations

import yaml

from tests.support.site import DOCS, ROOT

LABEL = ("app.kubernetes.io/name", "wsgiapp-operator")


def test_plain_installation_is_deleted_without_the_crd() -> None:
    page = (DOCS / "operations" / "uninstall.md").read_text()
    section = page.split("## The operator only")[1].split("## ")[0]
    left = []
    for made in yaml.safe_load_all((ROOT / "manifests/install.yaml").read_text()):
        about = made["metadata"]
        place = about.get("namespace")
        if made["kind"] == "Namespace":
            deleted = f"kubectl delete namespace {about['name']}\n" in section
        elif place == "wsgiapp-system":
            deleted = True
        else:
            where = f" --namespace {place}" if place else ""
            kinds = [line.split(" -l ")[0] for line in section.splitlines() if " -l " in line]
            deleted = LABEL in about["labels"].items() and any(
                line.startswith(f"kubectl{where} delete ")
                and made["kind"].lower() in line.split()[-1].split(",")
                for line in kinds
            )
        if not deleted:
            left.append(made["kind"])
    assert left == ["CustomResourceDefinition"]
