"""What does not fit a schema, in words: where it stands, and what it must be."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from devices import documents
from devices.documents import Node
from devices.mistakes import line_and_column, shortened

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError as Misfit

MOST_ERRORS = 20
TOO_MUCH_WORK = (
    "takes longer than a second to be checked, or refers to itself without an end. Make the type's schema simpler,"
    " or the text shorter"
)
# Of values that are allowed, so many are named.
NAMED_VALUES = 12
PATTERN_SHOWN_CHARS = 100

PLAIN_KEY = re.compile(r"(?!\d)[\w$-]+")

TYPES = {
    "array": "an array",
    "boolean": "true or false",
    "integer": "a whole number",
    "null": "null",
    "number": "a number",
    "object": "an object",
    "string": "text",
}


class SchemaError(NamedTuple):
    """One thing that does not fit: line and column count from 1, the path is as people write it: ``sensors[2].pin``."""

    line: int
    column: int
    path: str
    message: str

    @property
    def is_too_much_work(self) -> bool:
        return self.message == TOO_MUCH_WORK

    @property
    def sentence(self) -> str:
        return f"Line {self.line}, column {self.column}: {self.path or 'the whole'} {self.message}."


def told(misfit: Misfit, text: str, places: Node) -> SchemaError:
    """Say it in words. ``places`` is where everything stands in the text, as :func:`documents.locate` has it."""
    return _Telling(text, places).tell(misfit)


def path_in_words(path: Iterable[str | int]) -> str:
    written = ""
    for step in path:
        if isinstance(step, int):
            written += f"[{step}]"
        elif PLAIN_KEY.fullmatch(step):
            written += f".{step}" if written else step
        else:
            written += f'["{shortened(step)}"]'
    return written


class _Telling:
    def __init__(self, text: str, places: Node) -> None:
        self._text, self._places = text, places

    def tell(self, misfit: Misfit) -> SchemaError:
        path = list(misfit.absolute_path)
        line, column = line_and_column(self._text, self._position(path, misfit.validator))
        return SchemaError(line, column, path_in_words(path), self.message(misfit))

    def message(self, misfit: Misfit) -> str:
        say = SENTENCES.get(misfit.validator or "false")
        return say(self, misfit) if say else f"does not fit the rule {misfit.validator}; {self.what_is(misfit)}"

    def _position(self, path: list[Any], keyword: str | None) -> int:
        """Where it stands: a member that may not be there, or whose name is wrong, at its name."""
        around = documents.find(self._places, path[:-1])
        member = around.members.get(path[-1]) if path and around is not None and around.members is not None else None
        if member is not None and keyword in AT_THE_NAME:
            return member.start
        node = documents.find(self._places, path) or around or self._places
        return node.start

    def what_is(self, misfit: Misfit) -> str:
        """``is 3``: as it is written."""
        node = documents.find(self._places, list(misfit.absolute_path))
        if node is None:
            return "is missing"
        if node.members is not None:
            return "is an object"
        if node.items is not None:
            return "is an array"
        return f"is {shortened(self._text[node.start : node.end])}"

    def nearest(self, misfit: Misfit) -> str:
        """Of several ways to be right, say what is wrong with the one that is nearest."""
        best = _nearest(misfit)
        if best is None:
            return ""
        inner = list(best.absolute_path)[len(misfit.absolute_path) :]
        return f"; nearest: {path_in_words(inner)}{' ' if inner else 'it '}{self.message(best)}"


def _nearest(misfit: Misfit) -> Misfit | None:
    """Of the way with the least that is wrong: the first of that. A way for another kind of value is far off."""
    ways: dict[Any, list[Misfit]] = {}
    for each in misfit.context or []:
        ways.setdefault(each.relative_schema_path[0], []).append(each)
    if not ways:
        return None
    best = min(ways.values(), key=lambda way: (any(_is_other_kind(each) for each in way), len(way)))
    return best[0]


def _is_other_kind(misfit: Misfit) -> bool:
    return misfit.validator in {"type", "const", "enum", None} and len(misfit.relative_path) == 0


Say: TypeAlias = "Callable[[_Telling, Misfit], str]"


def _shown(value: Any) -> str:
    """A value of a schema, in a sentence."""
    match value:
        case bool() | None:
            return {True: "true", False: "false", None: "null"}[value]
        case str():
            return shortened(f'"{value}"')
        case dict():
            return "a certain object"
        case list():
            return "a certain array"
    return shortened(str(value))


def _either(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _type(telling: _Telling, misfit: Misfit) -> str:
    wanted = misfit.validator_value
    names = [TYPES[name] for name in ([wanted] if isinstance(wanted, str) else wanted)]
    return f"must be {_either(names)}; {telling.what_is(misfit)}"


def _enum(telling: _Telling, misfit: Misfit) -> str:
    values = [_shown(value) for value in misfit.validator_value]
    more = f", or one of {len(values) - NAMED_VALUES} more" if len(values) > NAMED_VALUES else ""
    begin = "must be" if len(values) == 1 else "must be one of"
    return f"{begin} {', '.join(values[:NAMED_VALUES])}{more}; {telling.what_is(misfit)}"


def _unknown(telling: _Telling, misfit: Misfit) -> str:
    name = list(misfit.absolute_path)[-1]
    if isinstance(name, int):
        return "is one item more than the type knows"
    schema = misfit.schema if isinstance(misfit.schema, dict) else {}
    near = get_close_matches(name, [each for each in schema.get("properties", {}) if each not in misfit.instance], 1)
    return f"is no member that the type knows{f'; did you mean {near[0]}' if near else ''}"


def _compared(words: str) -> Say:
    return lambda telling, misfit: f"must be {words} {_shown(misfit.validator_value)}; {telling.what_is(misfit)}"


def _counted(least_or_most: str, unit: str, size: Callable[[Any], int] = len) -> Say:
    def say(telling: _Telling, misfit: Misfit) -> str:
        wanted = misfit.validator_value
        units = unit if wanted == 1 else f"{unit}s"
        return f"must have at {least_or_most} {_shown(wanted)} {units}; has {size(misfit.instance)}"

    return say


def _contains(telling: _Telling, misfit: Misfit) -> str:
    return "must have at least 1 item of a certain kind; has none"


def _many_contained(least_or_most: str) -> Say:
    def say(telling: _Telling, misfit: Misfit) -> str:
        wanted = misfit.validator_value
        return f"must have at {least_or_most} {_shown(wanted)} item{'' if wanted == 1 else 's'} of a certain kind"

    return say


def _unique(telling: _Telling, misfit: Misfit) -> str:
    first = misfit.cause.args[0] if misfit.cause else 0
    return f"is the same as item [{first}]; each must be another"


def _pattern(telling: _Telling, misfit: Misfit) -> str:
    pattern = misfit.validator_value
    shown = pattern if len(pattern) <= PATTERN_SHOWN_CHARS else shortened(pattern)
    return f"must match the pattern {shown}; {telling.what_is(misfit)}"


def _name(telling: _Telling, misfit: Misfit) -> str:
    best = (misfit.context or [None])[0]
    why = NAMES.get(str(best.validator) if best else "")
    return f"is no name that a member may have here{f': {why(best)}' if why else ''}"


NAMES: dict[str, Callable[[Any], str]] = {
    "pattern": lambda misfit: f"it must match the pattern {shortened(misfit.validator_value)}",
    "enum": lambda misfit: f"it must be one of {', '.join(map(_shown, misfit.validator_value[:NAMED_VALUES]))}",
    "maxLength": lambda misfit: f"it may have {misfit.validator_value} characters",
    "minLength": lambda misfit: f"it must have {misfit.validator_value} characters",
}


def _dependent(telling: _Telling, misfit: Misfit) -> str:
    return f"is required beside {misfit.cause.args[0] if misfit.cause else 'another member'}, and missing"


def _one_of(telling: _Telling, misfit: Misfit) -> str:
    if misfit.cause is not None:
        forms = _either([str(index + 1) for index in misfit.cause.args])
        return f"must fit one form of {len(misfit.validator_value)}; fits the forms {forms.replace(' or ', ' and ')}"
    return _any_of(telling, misfit)


def _any_of(telling: _Telling, misfit: Misfit) -> str:
    return f"fits none of the {len(misfit.validator_value)} forms that it may have{telling.nearest(misfit)}"


def _not(telling: _Telling, misfit: Misfit) -> str:
    if misfit.validator_value in (True, {}):  # nothing may stand there
        return "may not be there"
    return f"fits what it must not be; {telling.what_is(misfit)}"


SENTENCES: dict[str, Say] = {
    "additionalProperties": _unknown,
    "anyOf": _any_of,
    "const": lambda telling, misfit: f"must be {_shown(misfit.validator_value)}; {telling.what_is(misfit)}",
    "contains": _contains,
    "dependentRequired": _dependent,
    "enum": _enum,
    "exclusiveMaximum": _compared("less than"),
    "exclusiveMinimum": _compared("more than"),
    "false": lambda telling, misfit: "may not be there",
    "maxContains": _many_contained("most"),
    "maxItems": _counted("most", "item"),
    "maxLength": _counted("most", "character"),
    "maxProperties": _counted("most", "member"),
    "maximum": _compared("at most"),
    "minContains": _many_contained("least"),
    "minItems": _counted("least", "item"),
    "minLength": _counted("least", "character"),
    "minProperties": _counted("least", "member"),
    "minimum": _compared("at least"),
    "multipleOf": _compared("a multiple of"),
    "not": _not,
    "oneOf": _one_of,
    "pattern": _pattern,
    "propertyNames": _name,
    "required": lambda telling, misfit: "is required and missing",
    "type": _type,
    "unevaluatedItems": _unknown,
    "unevaluatedProperties": _unknown,
    "uniqueItems": _unique,
}

AT_THE_NAME = {"additionalProperties", "propertyNames", "unevaluatedProperties", None}
