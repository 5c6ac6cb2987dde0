"""The keywords of JSON Schema 2020-12 as ``jsonschema`` has them, within a bounded time.

Some are written anew: those that look for patterns, those whose work grows with the square of a text, and those that
tell of several members at once, where each has a place of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from typing import Any

from jsonschema import Draft202012Validator, TypeChecker, validators
from jsonschema.exceptions import ValidationError as Misfit
from jsonschema.protocols import Validator

from devices.schemas.patterns import MOST_STEPS, compile_pattern
from devices.schemas.values import is_integer, is_multiple, is_number, key_of

# Of the processor: a machine that is busy refuses nothing for that.
MOST_SECONDS = 1.0
# What is found in one branch of several; the nearest is told.
MOST_MISFITS = 20

Misfits = Iterator[Misfit]
Keyword = Callable[[Any, Any, Any, Any], Any]


class TooMuchWork(Exception):
    """A check took longer than :data:`MOST_SECONDS`, or would."""


class _Budget:
    def __init__(self) -> None:
        self._until = time.thread_time() + MOST_SECONDS

    def spend(self) -> None:
        if time.thread_time() > self._until:
            raise TooMuchWork


_budget: ContextVar[_Budget] = ContextVar("budget")


@contextmanager
def bounded() -> Iterator[None]:
    """Have what is checked in the block end with :class:`TooMuchWork` where it takes too long."""
    token = _budget.set(_Budget())
    try:
        yield
    except (RecursionError, OverflowError) as error:
        raise TooMuchWork from error
    finally:
        _budget.reset(token)


def spending(keyword: Keyword) -> Keyword:
    def check(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        _budget.get().spend()
        return keyword(validator, value, instance, schema)

    return check


def is_found(pattern: str, text: str) -> bool:
    compiled = compile_pattern(pattern)
    _budget.get().spend()
    if compiled.steps(text) > MOST_STEPS:
        raise TooMuchWork
    return compiled.is_in(text)


def pattern(validator: Validator, source: str, instance: Any, schema: Any) -> Misfits:
    if isinstance(instance, str) and not is_found(source, instance):
        yield Misfit("")


def pattern_properties(validator: Any, patterns: dict[str, Any], instance: Any, schema: Any) -> Misfits:
    if not isinstance(instance, dict):
        return
    for source, subschema in patterns.items():
        for name, value in instance.items():
            if is_found(source, name):
                yield from validator.descend(value, subschema, path=name, schema_path=source)


def _is_additional(name: str, schema: Any) -> bool:
    if name in schema.get("properties", {}):
        return False
    return not any(is_found(source, name) for source in schema.get("patternProperties", {}))


def additional_properties(validator: Any, subschema: Any, instance: Any, schema: Any) -> Misfits:
    if isinstance(instance, dict):
        yield from _others(validator, subschema, {n: v for n, v in instance.items() if _is_additional(n, schema)})


def _others(validator: Any, subschema: Any, others: dict[str, Any] | dict[int, Any]) -> Misfits:
    """Tell of what no other keyword knows: where nothing of the kind may stand, of each by itself."""
    for step, value in others.items():
        if subschema is False:
            yield Misfit("", path=[step])
        else:
            yield from validator.descend(value, subschema, path=step)


def required(validator: Validator, names: list[str], instance: Any, schema: Any) -> Misfits:
    if isinstance(instance, dict):
        yield from (Misfit("", path=[name]) for name in names if name not in instance)


def dependent_required(validator: Validator, names: dict[str, list[str]], instance: Any, schema: Any) -> Misfits:
    if not isinstance(instance, dict):
        return
    for name, needed in names.items():
        if name in instance:
            yield from (Misfit("", path=[other], cause=KeyError(name)) for other in needed if other not in instance)


def property_names(validator: Any, subschema: Any, instance: Any, schema: Any) -> Misfits:
    if not isinstance(instance, dict):
        return
    for name in instance:
        misfits = list(islice(validator.descend(name, subschema), MOST_MISFITS))
        if misfits:
            yield Misfit("", path=[name], context=misfits)


def enum(validator: Validator, values: list[Any], instance: Any, schema: Any) -> Misfits:
    key = key_of(instance)
    if all(key_of(value) != key for value in values):
        yield Misfit("")


def const(validator: Validator, value: Any, instance: Any, schema: Any) -> Misfits:
    if key_of(value) != key_of(instance):
        yield Misfit("")


def multiple_of(validator: Validator, unit: Any, instance: Any, schema: Any) -> Misfits:
    if is_number(instance) and not is_multiple(instance, unit):
        yield Misfit("")


def unique_items(validator: Validator, is_wanted: bool, instance: Any, schema: Any) -> Misfits:
    if not is_wanted or not isinstance(instance, list):
        return
    first: dict[Any, int] = {}
    for index, item in enumerate(instance):
        key = key_of(item)
        if key in first:
            yield Misfit("", path=[index], cause=IndexError(first[key]))
        first.setdefault(key, index)


def any_of(validator: Any, subschemas: list[Any], instance: Any, schema: Any) -> Misfits:
    found: list[Misfit] = []
    for index, subschema in enumerate(subschemas):
        misfits = _misfits(validator, instance, subschema, index)
        if not misfits:
            return
        found += misfits
    yield Misfit("", context=found)


def one_of(validator: Any, subschemas: list[Any], instance: Any, schema: Any) -> Misfits:
    found: list[Misfit] = []
    fitting = []
    for index, subschema in enumerate(subschemas):
        misfits = _misfits(validator, instance, subschema, index)
        if not misfits:
            fitting.append(index)
        found += misfits
    if len(fitting) > 1:
        yield Misfit("", cause=IndexError(*fitting))
    elif not fitting:
        yield Misfit("", context=found)


def _misfits(validator: Any, instance: Any, subschema: Any, index: int) -> list[Misfit]:
    return list(islice(validator.descend(instance, subschema, schema_path=index), MOST_MISFITS))


def unevaluated_properties(validator: Any, subschema: Any, instance: Any, schema: Any) -> Misfits:
    if isinstance(instance, dict):
        known = evaluated(validator, instance, {**schema, "unevaluatedProperties": None})
        yield from _others(validator, subschema, {n: v for n, v in instance.items() if n not in known})


def unevaluated_items(validator: Any, subschema: Any, instance: Any, schema: Any) -> Misfits:
    if isinstance(instance, list):
        known = evaluated(validator, instance, {**schema, "unevaluatedItems": None})
        yield from _others(validator, subschema, {i: v for i, v in enumerate(instance) if i not in known})


def evaluated(validator: Any, instance: Any, schema: Any) -> set[Any]:
    """Return the keys or indexes of what other keywords of this schema look at (2020-12, core, section 11)."""
    _budget.get().spend()
    if not isinstance(schema, dict):
        return set()
    own = _evaluated_items(validator, instance, schema) if isinstance(instance, list) else _named(instance, schema)
    for subschema, resolver in _beside(validator, instance, schema):
        there = validator.evolve(schema=subschema, _resolver=resolver or validator._resolver)
        own |= evaluated(there, instance, subschema)
    return own


def _named(instance: dict[str, Any], schema: Any) -> set[Any]:
    if schema.get("additionalProperties") is not None or schema.get("unevaluatedProperties") is not None:
        return set(instance)
    return {name for name in instance if not _is_additional(name, schema)}


def _evaluated_items(validator: Any, instance: list[Any], schema: Any) -> set[Any]:
    if "items" in schema or schema.get("unevaluatedItems") is not None:
        return set(range(len(instance)))
    known = set(range(len(schema.get("prefixItems", []))))
    if "contains" in schema:
        looked_for = validator.evolve(schema=schema["contains"])
        known |= {index for index, item in enumerate(instance) if looked_for.is_valid(item)}
    return known


def _beside(validator: Any, instance: Any, schema: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the schemas that look at the same value and let it pass; beside each, what resolves its references."""
    if "$ref" in schema:
        resolved = validator._resolver.lookup(schema["$ref"])
        yield resolved.contents, resolved.resolver
    branches = [*schema.get("allOf", []), *schema.get("anyOf", []), *schema.get("oneOf", [])]
    if isinstance(instance, dict):
        branches += [each for name, each in schema.get("dependentSchemas", {}).items() if name in instance]
    yield from ((branch, None) for branch in branches if validator.evolve(schema=branch).is_valid(instance))
    if "if" in schema:
        holds = validator.evolve(schema=schema["if"]).is_valid(instance)
        if holds:
            yield schema["if"], None
        if (then := schema.get("then" if holds else "else")) is not None:
            yield then, None


OWN: dict[str, Keyword] = {
    "additionalProperties": additional_properties,
    "anyOf": any_of,
    "const": const,
    "dependentRequired": dependent_required,
    "enum": enum,
    "multipleOf": multiple_of,
    "oneOf": one_of,
    "pattern": pattern,
    "patternProperties": pattern_properties,
    "propertyNames": property_names,
    "required": required,
    "unevaluatedItems": unevaluated_items,
    "unevaluatedProperties": unevaluated_properties,
    "uniqueItems": unique_items,
}

TYPES: TypeChecker = Draft202012Validator.TYPE_CHECKER.redefine_many(
    {
        "number": lambda checker, value: is_number(value),
        "integer": lambda checker, value: is_integer(value),
    }
)

Checker: Any = validators.extend(
    Draft202012Validator,
    {name: spending(keyword) for name, keyword in (Draft202012Validator.VALIDATORS | OWN).items()},
    type_checker=TYPES,
)
