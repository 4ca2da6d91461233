"""The JSON Schema of ``pools.yaml``, for editors that complete and check while one types."""

from __future__ import annotations

from typing import Any

from seatkeeper.client.pools_file.definition import (
    FILE,
    Amount,
    Common,
    Day,
    Field,
    Flag,
    Length,
    Money,
    Named,
    Numbers,
    Patterns,
    Said,
    Span,
    Table,
    Whole,
    Words,
)

COMMON_PATTERN = "^(holder|host|label:[a-z0-9][a-z0-9._/-]{0,62})$"
NAME_PATTERN = "^[a-z0-9][a-z0-9._-]{0,62}$"

DAY_PATTERN = (
    "^[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\\.[0-9]{1,3})?)?"
    "([Zz]|[+-][0-9]{2}:[0-9]{2}))?$"
)
LENGTH_PATTERN = "^(?=.)([0-9]{1,4}d)?([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,8}s)?$"
PRICE_PATTERN = "^[0-9]{1,12}(\\.[0-9]{1,6})? [A-Z]{3}/seat-(year|hour)$"
LENGTH_PATTERN = "^(?=.)([0-9]{1,4}d)?([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,8}s)?$"
AMOUNT_PATTERN = "^[0-9]{1,12}(\\.[0-9]{1,6})? [A-Z]{3}$"

Json = dict[str, Any]


def json_schema() -> Json:
    """Return the schema. What several values decide together, such as sums, is beyond it."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pools.yaml of Seatkeeper",
        **_table(FILE),
    }


def _table(table: Table) -> Json:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [name for name, field in table.fields.items() if field.required],
        "properties": {name: _field(field) for name, field in table.fields.items()},
    }


def _field(field: Field) -> Json:
    found: Json = {"description": field.meaning}
    if field.default is not None:
        found["default"] = field.default
    match field.takes:
        case Whole(least, most):
            found |= {"type": "integer", "minimum": least, "maximum": most}
        case Length(least, most):
            number = {"type": "number", "minimum": least, "maximum": most}
            found |= {"anyOf": [number, {"type": "string", "pattern": LENGTH_PATTERN}]}
        case Words(most):
            found |= {"type": "string", "maxLength": most}
        case Flag():
            found |= {"type": "boolean"}
        case Numbers(least, most, many):
            found |= {
                "type": "object",
                "maxProperties": many,
                "propertyNames": {"pattern": NAME_PATTERN},
                "additionalProperties": {"type": "integer", "minimum": least, "maximum": most},
            }
        case Common(most):
            found |= {
                "type": "array",
                "items": {"type": "string", "pattern": COMMON_PATTERN},
                "maxItems": most,
                "uniqueItems": True,
            }
        case Patterns(most):
            found |= {
                "type": "array",
                "items": {"type": "string", "minLength": 1},
                "maxItems": most,
                "uniqueItems": True,
            }
        case Span():
            found |= {"type": "string", "pattern": LENGTH_PATTERN}
        case Amount():
            found |= {"type": "string", "pattern": AMOUNT_PATTERN}
        case Day():
            found |= {"type": "string", "pattern": DAY_PATTERN}
        case Money():
            found |= {"type": "string", "pattern": PRICE_PATTERN}
        case Said(pattern=pattern):
            found |= {"type": "string", "pattern": pattern}
        case Table():
            found |= _table(field.takes)
        case Named(table, most):
            found |= {
                "type": "object",
                "maxProperties": most,
                "propertyNames": {"pattern": NAME_PATTERN},
                "additionalProperties": _table(table),
            }
        case _:
            found |= {"type": "string", "pattern": NAME_PATTERN}
    return found
