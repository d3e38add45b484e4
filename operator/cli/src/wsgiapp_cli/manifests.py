"""Manifests on this machine: which app they hold, its folders, its environment.

From text to values, pure but for `read_text`. What a cluster would take from ConfigMaps and Secrets
is taken here from the same documents.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from wsgiapp.check import check_manifest
from wsgiapp.names import API_VERSION, GROUP, KIND
from wsgiapp.parse import parse_app
from wsgiapp.types import App, Content, Manifest

Files = Mapping[str, bytes]
Key = tuple[str, str, str]  # kind, namespace, name

# $(NAME) in an env value is replaced, $$(NAME) stands for itself (Kubernetes, dependent variables).
_REFERENCE = re.compile(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")

_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")  # of a ConfigMap or Secret; it becomes a file's name


class ManifestError(Exception):
    """The manifests cannot be served; each line says where, what is there, and what to do."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = list(lines)


class Faults:
    """What is wrong with the manifests, gathered so that all of it is reported at once."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    @contextmanager
    def gather(self) -> Iterator[None]:
        """Keep what is wrong in this block, and go on after it."""
        try:
            yield
        except ManifestError as error:
            self._lines += [line for line in error.lines if line not in self._lines]

    def refuse(self) -> None:
        """Raise ManifestError with all that was gathered; do nothing where that is nothing."""
        if self._lines:
            raise ManifestError(*self._lines)


@dataclass(frozen=True)
class Documents:
    """All objects of the given files, by kind, namespace and name."""

    objects: Mapping[Key, Manifest]
    origins: Mapping[Key, str]  # the file each came from
    sources: tuple[str, ...]  # the files, as given

    def data(self, kind: str, namespace: str, name: str, *, field: str) -> Files:
        """Return key → bytes of a ConfigMap or Secret that `field` of the app names."""
        found = self.objects.get((kind, namespace, name))
        if found is None:
            raise ManifestError(
                f"{field}: {kind} {name!r} is not in {', '.join(self.sources)}; add it there, or give"
                " its file with another -f"
            )
        return _secret_data(found) if kind == "Secret" else _config_map_data(found)


def read_texts(paths: Sequence[Path]) -> dict[str, str]:
    """Return the manifests' text by file name; raises ManifestError with all that cannot be read."""
    texts, faults = {}, Faults()
    for path in paths:
        with faults.gather():
            texts[str(path)] = read_text(path)
    faults.refuse()
    return texts


def read_text(path: Path) -> str:
    """Return a manifest's text; raises ManifestError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ManifestError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: byte {error.start} is not UTF-8; save it as UTF-8") from None


def read_documents(texts: Mapping[str, str]) -> Documents:
    """Return the objects in YAML (or JSON) texts, given as file name → text."""
    objects: dict[Key, Manifest] = {}
    origins: dict[Key, str] = {}
    faults = Faults()
    for source, text in texts.items():
        with faults.gather():
            for document in _parse(source, text):
                key = _key(source, document)
                if key in objects:
                    raise ManifestError(
                        f"{source}: {key[0]} {key[2]!r} is also in {origins[key]}; keep one of them"
                    )
                objects[key] = document
                origins[key] = source
    faults.refuse()
    return Documents(objects=objects, origins=origins, sources=tuple(texts))


def _parse(source: str, text: str) -> Iterator[Manifest]:
    try:
        documents = list(yaml.load_all(text, Loader=StrictLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        row = f" line {mark.line + 1}:" if mark else ""
        raise ManifestError(f"{source}:{row} {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ManifestError(f"{source}: {error}") from None
    for document in documents:
        is_list = isinstance(document, dict) and document.get("kind") == "List"
        for each in document.get("items") or [] if is_list else [document]:
            if isinstance(each, dict):
                yield each
            elif each is not None:
                raise ManifestError(
                    f"{source}: a document is {type(each).__name__}, not an object with apiVersion,"
                    " kind and metadata"
                )


class StrictLoader(yaml.SafeLoader):
    """A safe loader that reads as kubectl reads: no key twice, and a date is text."""

    # The stubs give the anchor another type than PyYAML passes: the anchor's name, or None.
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            fault = ""
            if not isinstance(key, yaml.ScalarNode):
                fault = "a key is a list or an object; use text"
            elif key.value in seen:
                fault = f"{key.value} is there twice; keep one"
            if fault:
                raise yaml.MarkedYAMLError(problem=fault, problem_mark=key.start_mark)
            seen.add(key.value)
        return node


StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in known if not tag.endswith(":timestamp")]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _key(source: str, document: Manifest) -> Key:
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    kind = document.get("kind")
    if not isinstance(kind, str) or not isinstance(name, str):
        raise ManifestError(f"{source}: a document has no kind or no metadata.name; add them")
    return kind, _namespace(document), name


def _namespace(document: Manifest) -> str:
    return document["metadata"].get("namespace") or "default"


def choose_app(documents: Documents, *, name: str | None = None) -> Manifest:
    """Return the WsgiApp object called `name`; without a name, the only one there is."""
    apps = {
        key[2]: found
        for key, found in documents.objects.items()
        if key[0] == KIND and found.get("apiVersion") == API_VERSION
    }
    where = ", ".join(documents.sources)
    if not apps:
        alike = sorted(
            filter(None, (describe_alike(found) for found in documents.objects.values()))
        )
        raise ManifestError(
            f"{where}: {', '.join(alike)}; use kind {KIND} and apiVersion {API_VERSION}"
            if alike
            else f"{where}: no {KIND} of {API_VERSION}; give the file that has it with another -f"
        )
    if name is not None and name not in apps:
        raise ManifestError(f"--app is {name!r}; {where} has {', '.join(sorted(apps))}")
    if name is None and len(apps) > 1:
        raise ManifestError(f"{where}: choose one with --app: {', '.join(sorted(apps))}")
    return apps[name] if name is not None else next(iter(apps.values()))


def describe_alike(found: Manifest) -> str:
    """Return what an object calls itself that may have been meant as a WsgiApp; "" for all others."""
    kind, version = str(found.get("kind")), str(found.get("apiVersion"))
    is_alike = kind.lower() in (KIND.lower(), f"{KIND.lower()}s") or version.startswith(f"{GROUP}/")
    return f"kind {kind} and apiVersion {version}" if is_alike else ""


def read_app(manifest: Manifest) -> App:
    """Return the app, checked as an API server checks it; raises Invalid with all that is wrong."""
    check_manifest(manifest)
    return parse_app(manifest)


def read_folders(documents: Documents, app: App) -> dict[str, Files]:
    """Return the files of the source and of each entry of config, by content's name.

    Raises ManifestError with all that is missing or cannot be a file.
    """
    folders, faults = {}, Faults()
    for content in app.contents:
        with faults.gather():
            folders[content.name] = read_folder(documents, app, content)
    faults.refuse()
    return folders


def read_folder(documents: Documents, app: App, content: Content) -> Files:
    """Return the files of the app's source, or of one entry of its config, by name."""
    place = "spec.source" if content is app.source else f"spec.config[{content.name}]"
    return documents.data(content.ref.kind, app.namespace, content.ref.name, field=place)


# --- environment ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Environment:
    """Variables of the manifest, and the names of those that only a pod can have."""

    values: Mapping[str, str]
    left_out: tuple[str, ...]


def read_environment(documents: Documents, app: App) -> Environment:
    """Return `spec.envFrom` and `spec.env` resolved as the kubelet does, in its order.

    Variables from the pod itself (fieldRef, resourceFieldRef) are left out and named. Raises ManifestError with
    every object and key that is missing.
    """
    values: dict[str, str] = {}
    left_out: list[str] = []
    faults = Faults()
    for index, source_of_all in enumerate(app.env_from):
        entry = source_of_all.pod_field
        with faults.gather():
            values |= _env_from(documents, app, entry, field=f"spec.envFrom[{index}]")
    for entry in app.env:
        name, source = entry["name"], entry.get("valueFrom")
        if source is None:
            values[name] = _expand(entry.get("value", ""), values)
        elif "fieldRef" in source or "resourceFieldRef" in source:
            left_out.append(name)
        else:
            with faults.gather():
                value = _value_from(documents, app, source, field=f"spec.env[{name}].valueFrom")
                if value is not None:
                    values[name] = value
    faults.refuse()
    return Environment(values=values, left_out=tuple(left_out))


def _env_from(documents: Documents, app: App, entry: Manifest, *, field: str) -> dict[str, str]:
    for kind, member in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
        reference = entry.get(member)
        if not reference:
            continue
        key = (kind, app.namespace, reference["name"])
        if key not in documents.objects and reference.get("optional"):
            return {}
        data = documents.data(*key, field=f"{field}.{member}.name")
        return {entry.get("prefix", "") + name: _text(value) for name, value in data.items()}
    raise ManifestError(f"{field}: has neither configMapRef nor secretRef; use one of them")


def _value_from(documents: Documents, app: App, source: Manifest, *, field: str) -> str | None:
    """Return the value of one key, or None where it is absent and optional."""
    member, reference = next(iter(source.items()))
    kind = {"configMapKeyRef": "ConfigMap", "secretKeyRef": "Secret"}[member]
    key = (kind, app.namespace, reference["name"])
    if key not in documents.objects and reference.get("optional"):
        return None
    data = documents.data(*key, field=f"{field}.{member}.name")
    if reference["key"] in data:
        return _text(data[reference["key"]])
    if reference.get("optional"):
        return None
    raise ManifestError(
        f"{field}.{member}.key: is {reference['key']!r}; {kind} {reference['name']!r} has"
        f" {', '.join(sorted(data)) or 'no keys'}"
    )


def _text(value: bytes) -> str:
    return value.decode(errors="surrogateescape")  # as os.environ holds bytes


def _expand(value: str, values: Mapping[str, str]) -> str:
    def replace(match: re.Match[str]) -> str:
        if match.group() == "$$":
            return "$"
        return values.get(match.group(1), match.group())

    return _REFERENCE.sub(replace, value)


# --- data of ConfigMaps and Secrets ---------------------------------------------------------------


def _config_map_data(found: Manifest) -> Files:
    return _texts(found, "data") | _decoded(found, "binaryData")


def _secret_data(found: Manifest) -> Files:
    return _decoded(found, "data") | _texts(found, "stringData")


def _texts(found: Manifest, member: str) -> dict[str, bytes]:
    files, faults = {}, Faults()
    for key, value in _entries(found, member):
        with faults.gather():
            files[key] = _text_bytes(value, f"{_label(found)}: {member}[{key!r}]")
    faults.refuse()
    return files


def _text_bytes(value: Any, where: str) -> bytes:
    if not isinstance(value, str):
        raise ManifestError(f"{where} is {value!r}; it must be text: put it in quotes")
    return value.encode()


def _decoded(found: Manifest, member: str) -> dict[str, bytes]:
    remedy = "use stringData for plain text" if found["kind"] == "Secret" else "use data"
    files, faults = {}, Faults()
    for key, value in _entries(found, member):
        with faults.gather():
            files[key] = _base64_bytes(value, f"{_label(found)}: {member}[{key!r}]", remedy)
    faults.refuse()
    return files


def _base64_bytes(value: Any, where: str, remedy: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise ManifestError(f"{where} is not base64; {remedy}") from None


def _entries(found: Manifest, member: str) -> Iterator[tuple[str, Any]]:
    entries = found.get(member) or {}
    if not isinstance(entries, dict):
        raise ManifestError(
            f"{_label(found)}: {member} is {type(entries).__name__}; use keys with texts"
        )
    for key, value in entries.items():
        if not isinstance(key, str) or not _KEY.fullmatch(key) or key.startswith(".."):
            raise ManifestError(
                f"{_label(found)}: {member} has the key {key!r}; use letters, digits, '-', '_' and '.'"
            )
        yield key, value


def _label(found: Manifest) -> str:
    return f"{found['kind']} {found['metadata']['name']!r}"
