"""What a text says, with numbers as they are written: no digit is lost, and 0.1 is a tenth."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

# Python refuses to read longer integers (``sys.get_int_max_str_digits``).
INT_CHARS = 4000
# Digits that a quotient may have. Between the largest number that devices read, and the smallest, are some 650.
MOST_DIGITS = 1000


def read(text: str) -> Any:
    """Return what JSON says: integers as ``int``, all other numbers as ``Decimal``. It was parsed before."""
    return json.loads(text, parse_int=_integer, parse_float=Decimal)


def _integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) < INT_CHARS else Decimal(digits)


def is_number(value: Any) -> bool:
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


def is_integer(value: Any) -> bool:
    """Whether it is a whole number, however it is written: 1.0 and 1e3 are some."""
    if isinstance(value, Decimal):
        return value == value.to_integral_value()
    return isinstance(value, int) and not isinstance(value, bool)


def is_multiple(value: int | Decimal, unit: int | Decimal) -> bool:
    """Whether one number is so many times the other. Raises ``OverflowError`` for what would take too many digits."""
    if not value:
        return True
    value_digits, unit_digits = Decimal(value).as_tuple(), Decimal(unit).as_tuple()
    shift = int(value_digits.exponent) - int(unit_digits.exponent)
    if abs(shift) > MOST_DIGITS:
        raise OverflowError
    many = _joined(value_digits.digits) * (10**shift if shift > 0 else 1)
    one = _joined(unit_digits.digits) * (10**-shift if shift < 0 else 1)
    return many % one == 0


def _joined(digits: tuple[int, ...]) -> int:
    # Not by way of text, which may be too long to be read.
    return int(Decimal((0, digits, 0)))


def key_of(value: Any) -> Any:
    """Return something for a set that is the same for equal values of JSON: of 1 and 1.0, not of 1 and true."""
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, dict):
        return ("object", frozenset((name, key_of(each)) for name, each in value.items()))
    if isinstance(value, list):
        return ("array", tuple(map(key_of, value)))
    return value
