"""`wsgiapp render`: the objects that the operator makes of a manifest."""

import argparse
from collections.abc import Mapping
from typing import Any

import yaml
from wsgiapp.digest import digest_object
from wsgiapp.resources import build_resources
from wsgiapp.resources.platform import Platform

from wsgiapp_cli.manifests import choose_app, read_app, read_documents, read_texts


def render_command(arguments: argparse.Namespace) -> int:
    owned = render(
        read_texts(arguments.files),
        name=arguments.app,
        prefork_image=arguments.prefork_image,
    )
    print(
        yaml.dump_all(owned, Dumper=Plain, sort_keys=False, width=100, allow_unicode=True),
        end="",
    )
    return 0


class Plain(yaml.SafeDumper):
    """YAML without aliases: what is the same in two places is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def render(
    texts: Mapping[str, str], *, name: str | None, prefork_image: str
) -> list[dict[str, Any]]:
    """Return the objects that the operator applies for one app, but for what a cluster gives.

    They have no owner, since there is no WsgiApp yet that could be one. Where a ConfigMap or Secret
    with `onChange: Restart` is among the texts, the pods carry its digest as they would there.
    """
    documents = read_documents(texts)
    app = read_app(choose_app(documents, name=name))
    platform = Platform(
        prefork_image=prefork_image, prefork_pull_policy="IfNotPresent", image_volumes=True
    )
    digests = {
        name: digest_object(documents.objects[key])
        for name, ref in app.restart_refs.items()
        if (key := (ref.kind, app.namespace, ref.name)) in documents.objects
    }
    owned = build_resources(app, platform, digests)
    for resource in owned:
        del resource["metadata"]["ownerReferences"]
    return owned
