"""What an installation does not let WsgiApps declare. Pure.

The CRD is one for the cluster and its rules know no installation; what only this one refuses is found here.
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase

from wsgiapp.resources.platform import Platform
from wsgiapp.schema import Invalid, join, refuse
from wsgiapp.types import App


def check_policy(app: App, platform: Platform) -> None:
    """Raise Invalid with everything of the app that this installation does not allow."""
    refuse(find_refused_annotations(app, platform.ingress_annotations))


def find_refused_annotations(app: App, allowed: tuple[str, ...]) -> Iterator[Invalid]:
    """Yield the annotations of the Ingress that fit none of the patterns; no patterns allow all."""
    names = app.ingress.annotations if app.ingress is not None and allowed else {}
    for name in names:
        if not any(fnmatchcase(name, pattern) for pattern in allowed):
            yield Invalid(
                "spec.ingress.annotations",
                f"has '{name}', which this installation does not allow; use {join(allowed)}",
            )
