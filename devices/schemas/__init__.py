"""Whether a text fits a JSON Schema (2020-12), and if not, where and why: nothing is fetched, nobody else waits.

What checks is loaded with the first check: most commands and servers do none, and it takes a fifth of their start.
"""

from __future__ import annotations

from devices.schemas.errors import SchemaError

__all__ = ["SCHEMA_MAX_BYTES", "SchemaError", "check_schema", "errors_of"]

SCHEMA_MAX_BYTES = 65536


def errors_of(schema: str, text: str) -> list[SchemaError]:
    """Return what of a text does not fit, in the order of the text, and at most twenty; nothing where all does.

    The text is one that :func:`devices.parsing.parse_config` takes. Raises ``ValidationError`` for what is no schema.
    """
    from devices.schemas import checking

    return checking.errors_of(schema, text)


def check_schema(text: str) -> None:
    """Raise ``ValidationError`` with the place and a sentence for a text that is no schema, or none of ours."""
    from devices.schemas import reading

    reading.compile_schema(text)
