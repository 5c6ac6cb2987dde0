"""Checks one text by one schema."""

from __future__ import annotations

from itertools import islice

from devices import documents
from devices.schemas.errors import MOST_ERRORS, TOO_MUCH_WORK, SchemaError, told
from devices.schemas.keywords import TooMuchWork, bounded
from devices.schemas.reading import compile_schema
from devices.schemas.values import read


def errors_of(schema: str, text: str) -> list[SchemaError]:
    """As :func:`devices.schemas.errors_of`, which loads this."""
    checker = compile_schema(schema).checker
    value = read(text)
    try:
        with bounded():
            misfits = list(islice(checker.iter_errors(value), MOST_ERRORS))
    except TooMuchWork:
        return [SchemaError(1, 1, "", TOO_MUCH_WORK)]
    if not misfits:
        return []
    places = documents.locate(text)
    errors = dict.fromkeys(told(misfit, text, places) for misfit in misfits)
    return sorted(errors)
