"""All that is wrong with a manifest that never met an API server, said at once.

Pure. The schema, the CRD's rules and the operator's own about `spec.podTemplate` are asked one after the other; what one
of them finds does not keep the others from being asked, as far as they can read the manifest.
"""

from collections.abc import Iterator

from wsgiapp.cel import find_broken_rules
from wsgiapp.overlay import find_faults
from wsgiapp.schema import Invalid, complete, find_spec_faults, load_spec_schema, refuse
from wsgiapp.types import Manifest


def check_manifest(manifest: Manifest) -> None:
    """Raise Invalid with everything that an API server or the operator would refuse `manifest` for."""
    refuse(find_all_faults(manifest))


def find_all_faults(manifest: Manifest) -> Iterator[Invalid]:
    faults = list(find_spec_faults(manifest.get("spec")))
    yield from faults
    known = {fault.field for fault in faults}
    yield from (rule for rule in find_broken_rules(manifest) if rule.field not in known)
    is_template_readable = not any(
        field == "spec" or field.startswith("spec.podTemplate") for field in known
    )
    if is_template_readable:
        spec = complete(manifest["spec"], load_spec_schema())
        yield from (Invalid(*fault) for fault in find_faults(spec.get("podTemplate", {})))
