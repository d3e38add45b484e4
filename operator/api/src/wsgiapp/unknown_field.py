"""Which field an unknown one was meant to be, as far as its name tells. Pure.

Names are brought along from gunicorn (`max_requests`), from a Deployment (`nodeSelector`), or belong elsewhere in the
spec.
"""

import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]
TYPO = 0.85  # of difflib's ratio: one or two letters differ
DEEPEST = 3  # spec.podTemplate.spec.nodeSelector
LEAST = 4  # letters of a name that is looked for within others
MOST = 3  # guesses; more say nothing


def find_meant(name: str, path: str, known: Collection[str], spec: Schema) -> list[str]:
    """Return the paths of fields that `name`, unknown below `path`, may stand for, the likeliest first.

    `known` are the fields of `path`, `spec` is the schema of the whole. Nothing is returned where the name says nothing.
    """
    word = plain(name)
    alike = {
        field: difflib.SequenceMatcher(None, word, plain(field)).ratio()
        for field in known
        if len(word) >= LEAST
    }
    nearest = max(alike, key=lambda field: alike[field], default="")
    if alike.get(nearest, 0) >= TYPO:
        return [f"{path}.{nearest}"]
    elsewhere = [place for place in find_places(spec, "spec") if ends_with(place, word)]
    longer = [f"{path}.{field}" for field in alike if word in plain(field)]
    return (elsewhere or longer)[:MOST]


def plain(name: str) -> str:
    """Return a name without what differs between snake_case, kebab-case and camelCase."""
    return name.replace("_", "").replace("-", "").lower()


def ends_with(place: str, word: str) -> bool:
    return plain(place.rpartition(".")[2]) == word


def find_places(schema: Schema, path: str) -> Iterator[str]:
    """Yield the paths of all fields that lie in objects, not in lists."""
    for name, child in schema.get("properties", {}).items():
        place = f"{path}.{name}"
        yield place
        if place.count(".") < DEEPEST:
            yield from find_places(child, place)
