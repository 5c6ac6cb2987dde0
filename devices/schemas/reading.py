"""Reads a schema, and refuses what is none, refers to anything outside itself, or cannot be checked in bounded time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn
from urllib.parse import unquote

from django.core.exceptions import ValidationError
from jsonschema_specifications import REGISTRY
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from devices import documents
from devices.mistakes import line_and_column, shortened
from devices.parsing import parse_object
from devices.schemas import SCHEMA_MAX_BYTES
from devices.schemas.errors import told
from devices.schemas.keywords import Checker, TooMuchWork, bounded
from devices.schemas.patterns import UnusablePattern, compile_pattern
from devices.schemas.values import read

DIALECT = "https://json-schema.org/draft/2020-12/schema"

# Which keywords hold schemas: one, a list of them, or some by name.
ONE = {
    "additionalProperties", "contains", "contentSchema", "else", "if", "items", "not", "propertyNames", "then",
    "unevaluatedItems", "unevaluatedProperties",
}  # fmt: skip
LIST = {"allOf", "anyOf", "oneOf", "prefixItems"}
NAMED = {"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"}
NOTHING = {"not": True}
ELSEWHERE = {"$dynamicRef", "$recursiveRef", "$dynamicAnchor", "$recursiveAnchor", "$vocabulary"}

# Wherever $schema stands, jsonschema goes on with its own keywords, which know no decimals and no bounds. So the
# metaschema is without it; and under another address, since jsonschema knows the original by heart.
OWN_ADDRESS = "https://metaschema.invalid/"


def _renamed(metaschema: Any) -> Any:
    text = json.dumps({name: value for name, value in metaschema.items() if name != "$schema"})
    return json.loads(text.replace("https://json-schema.org/", OWN_ADDRESS))


METASCHEMA = DIALECT.replace("https://json-schema.org/", OWN_ADDRESS)
METASCHEMAS: Registry[Any] = Registry().with_resources(
    (each["$id"], DRAFT202012.create_resource(each))
    for each in (_renamed(REGISTRY.contents(uri)) for uri in REGISTRY if "draft/2020-12/" in uri)
)

Path = tuple[str | int, ...]


class InvalidSchema(ValidationError):
    """Text that is no schema to be checked by. ``line`` and ``column`` count from 1; None where the whole is meant."""

    def __init__(self, message: str, line: int | None = None, column: int | None = None) -> None:
        super().__init__(message, code="INVALID_SCHEMA")
        self.line, self.column = line, column


@dataclass(frozen=True, eq=False)
class Compiled:
    """A schema that is ready for checks."""

    schema: Any
    checker: Any


@lru_cache(maxsize=64)
def compile_schema(text: str) -> Compiled:
    """Make a schema ready for checks, once for each text. Raises ``ValidationError``."""
    size = len(text.encode(errors="surrogatepass"))
    if size > SCHEMA_MAX_BYTES:
        raise InvalidSchema(f"The schema has {size} bytes; {SCHEMA_MAX_BYTES} are allowed. Shorten it.")
    parse_object(text)
    schema = read(text)
    _Reading(text, schema).check()
    # Neither has a meaning where nothing is fetched.
    own = {name: value for name, value in schema.items() if name not in {"$id", "$schema"}}
    for _, each in list(_schemas(own)):
        _replace_false(each)
    return Compiled(own, Checker(own, registry=Registry()))


def _schemas(schema: Any, path: Path = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield every schema in a schema, and where it stands."""
    if not isinstance(schema, dict):
        return
    yield path, schema
    for keyword, value in schema.items():
        if keyword in ONE:
            yield from _schemas(value, (*path, keyword))
        elif keyword in LIST and isinstance(value, list):
            for index, each in enumerate(value):
                yield from _schemas(each, (*path, keyword, index))
        elif keyword in NAMED and isinstance(value, dict):
            for name, each in value.items():
                yield from _schemas(each, (*path, keyword, name))


def _replace_false(schema: dict[str, Any]) -> None:
    """Write ``false`` as an object: jsonschema would not say where in a text the value stands that it refuses."""
    for keyword, value in schema.items():
        if keyword in LIST:
            schema[keyword] = [NOTHING if each is False else each for each in value]
        elif keyword in NAMED:
            schema[keyword] = {name: NOTHING if each is False else each for name, each in value.items()}
        elif keyword in {"items", "then", "else"} and value is False:
            schema[keyword] = NOTHING


class _Reading:
    """Looks at one schema, and at all that its references lead to."""

    def __init__(self, text: str, schema: Any) -> None:
        self._text, self._schema = text, schema
        self._places = documents.locate(text)
        self._seen: set[int] = set()
        self._anchors: dict[str, Path] = {}

    def check(self) -> None:
        """Raise :class:`InvalidSchema` for the first thing that is wrong."""
        if (dialect := self._schema.get("$schema", DIALECT)) not in [DIALECT, f"{DIALECT}#"]:
            shown = shortened(json.dumps(dialect, ensure_ascii=False, default=str))
            self._refuse(("$schema",), f"this is written for {shown}. Write it for draft 2020-12: say {DIALECT}.")
        self._check_by_metaschema((), self._schema)
        for path, each in _schemas(self._schema):
            if "$anchor" in each:
                self._anchors[each["$anchor"]] = path
        self._check_all((), self._schema)

    def _check_all(self, place: Path, schema: Any) -> None:
        found = list(_schemas(schema, place))
        self._seen |= {id(each) for _, each in found}
        for path, each in found:
            self._check_one(path, each)
        for path, each in found:
            if "$ref" in each:
                target, referred = self._target((*path, "$ref"), each["$ref"])
                if isinstance(referred, dict) and id(referred) not in self._seen:  # where no keyword has a schema
                    self._check_by_metaschema(target, referred)
                    self._check_all(target, referred)
                self._follow((*path, "$ref"), each)

    def _check_by_metaschema(self, path: Path, schema: Any) -> None:
        checker = Checker(METASCHEMAS.contents(METASCHEMA), registry=METASCHEMAS)
        try:
            with bounded():
                misfit = next(iter(checker.iter_errors(schema)), None)
        except TooMuchWork:
            self._refuse(path, "it takes longer than a second to look at this schema. Make it simpler.")
        if misfit is not None:
            misfit.path.extendleft(reversed(path))
            error = told(misfit, self._text, self._places)
            message = f"{error.sentence} This is no JSON Schema (2020-12) yet."
            raise InvalidSchema(message, error.line, error.column)

    def _check_one(self, path: Path, schema: dict[str, Any]) -> None:
        """Refuse what no schema here may say, whatever else is right about it."""
        for keyword in ELSEWHERE & schema.keys():
            self._refuse((*path, keyword), f"{keyword} is not offered. Refer to a part of this schema by $ref.")
        for keyword in ["$id", "$schema"]:
            if path and keyword in schema:
                self._refuse((*path, keyword), f"only the whole schema may have a {keyword}. Remove this one.")
        reference = schema.get("$ref", "#")
        if not reference.startswith("#"):
            shown = shortened(reference)
            self._refuse((*path, "$ref"), f"{shown} is outside of this schema. Put it into $defs, and write #/$defs/….")
        sources = [((*path, "pattern"), schema["pattern"])] if "pattern" in schema else []
        sources += [((*path, "patternProperties", name), name) for name in schema.get("patternProperties", {})]
        for place, source in sources:
            try:
                compile_pattern(source)
            except UnusablePattern as error:
                self._refuse(place, f"the pattern {shortened(source)} {error}")

    def _follow(self, place: Path, schema: Any) -> None:
        """Refuse what refers to itself without looking at any part of a value in between."""
        pending, on_the_way = [schema], {id(schema)}
        while pending:
            for target in self._of_the_same_value(place, pending.pop()):
                if target is schema:
                    self._refuse(place, "this leads back to itself without an end. Refer to it from a member or item.")
                if id(target) not in on_the_way:
                    on_the_way.add(id(target))
                    pending.append(target)

    def _of_the_same_value(self, place: Path, schema: Any) -> Iterator[Any]:
        if not isinstance(schema, dict):
            return
        if "$ref" in schema:
            yield self._target(place, schema["$ref"])[1]
        for keyword in ["allOf", "anyOf", "oneOf"]:
            yield from schema.get(keyword, [])
        yield from (schema[keyword] for keyword in ["not", "if", "then", "else"] if keyword in schema)
        yield from schema.get("dependentSchemas", {}).values()

    def _target(self, place: Path, reference: str) -> tuple[Path, Any]:
        """Return where a reference leads to, and what stands there."""
        pointer = unquote(reference[1:])
        steps: Any = pointer.split("/")[1:] if pointer.startswith("/") or not pointer else self._anchors.get(pointer)
        found, path = self._schema, []
        for step in steps or []:
            name = step.replace("~1", "/").replace("~0", "~") if isinstance(step, str) else step
            if isinstance(found, list) and str(name).isascii() and str(name).isdecimal():
                name = int(str(name)[:9])
                found = found[name] if name < len(found) else None
            else:
                found = found.get(name) if isinstance(found, dict) else None
            path.append(name)
        if steps is None or not isinstance(found, dict | bool):
            shown = shortened(reference)
            self._refuse(place, f"{shown} leads nowhere in this schema. Correct it, or write out what it should be.")
        return tuple(path), found

    def _refuse(self, path: Path, message: str) -> NoReturn:
        node = documents.find(self._places, path) or self._places
        line, column = line_and_column(self._text, node.start)
        raise InvalidSchema(f"Line {line}, column {column}: {message}", line, column)
