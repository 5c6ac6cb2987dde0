"""Whether a text fits a JSON Schema (2020-12), and if not, where and why: nothing is fetched, nobody else waits."""

from devices.schemas.checking import errors_of
from devices.schemas.errors import SchemaError
from devices.schemas.reading import InvalidSchema, check_schema

__all__ = ["InvalidSchema", "SchemaError", "check_schema", "errors_of"]
