"""Whether what arrived is what PostgreSQL says the value is, for each kind of type.

A comparison is given PostgreSQL's text (`v::text`), its JSON (`to_jsonb(v)::text`), and what came out at the other end:
Python objects of the official connector, or of pyarrow for the Parquet file.
"""

from __future__ import annotations

import datetime
import json
import math
import re
import struct
from collections.abc import Callable
from decimal import Decimal
from typing import Any

Comparison = Callable[[str, str, Any], bool]


def boolean(text: str, _: str, arrived: Any) -> bool:
    return arrived is (text == "true")


def number(text: str, _: str, arrived: Any) -> bool:
    return type(arrived) in (int, Decimal) and Decimal(arrived) == Decimal(text)


def digits(text: str, _: str, arrived: Any) -> bool:
    """A numeric without a scale travels as text, and becomes a number in Snowflake."""
    return number(text, "", Decimal(arrived) if isinstance(arrived, str) else arrived)


def padded(text: str, _: str, arrived: Any) -> bool:
    """The cast to text takes blanks away that belong to the value: char(5) has five characters."""
    return isinstance(arrived, str) and arrived == text.ljust(5)


def address(text: str, _: str, arrived: Any) -> bool:
    """The cast to text adds the mask that the output of an inet leaves out where it says nothing."""
    return isinstance(arrived, str) and text in {arrived, f"{arrived}/32", f"{arrived}/128"}


def money(text: str, _: str, arrived: Any) -> bool:
    """The text is that of the locale C: -$1,234.56."""
    return number(text.replace("$", "").replace(",", ""), "", arrived)


def double(text: str, _: str, arrived: Any) -> bool:
    if not isinstance(arrived, float):
        return False
    wanted = float(text)
    if math.isnan(wanted):
        return math.isnan(arrived)
    return arrived == wanted and math.copysign(1, arrived) == math.copysign(1, wanted)


def single(text: str, _: str, arrived: Any) -> bool:
    """A float4 becomes the double of the same value."""
    return double(repr(struct.unpack("f", struct.pack("f", float(text)))[0]), "", arrived)


def text(text: str, _: str, arrived: Any) -> bool:
    return isinstance(arrived, str) and arrived == text


def binary(text: str, _: str, arrived: Any) -> bool:
    return isinstance(arrived, bytes | bytearray) and "\\x" + bytes(arrived).hex() == text


def date(text: str, _: str, arrived: Any) -> bool:
    return type(arrived) is datetime.date and arrived.isoformat() == text


def time(text: str, _: str, arrived: Any) -> bool:
    return isinstance(arrived, datetime.time) and arrived == datetime.time.fromisoformat(text)


def timestamp(text: str, _: str, arrived: Any) -> bool:
    return (
        isinstance(arrived, datetime.datetime)
        and arrived.tzinfo is None
        and arrived == datetime.datetime.fromisoformat(text)
    )


def instant(text: str, _: str, arrived: Any) -> bool:
    return (
        isinstance(arrived, datetime.datetime)
        and arrived.tzinfo is not None
        and arrived.astimezone(datetime.UTC) == datetime.datetime.fromisoformat(text)
    )


def document(_: str, as_json: str, arrived: Any) -> bool:
    return isinstance(arrived, str) and is_alike(read(arrived), read(as_json))


def array(_: str, as_json: str, arrived: Any) -> bool:
    return document("", as_json, arrived)


def numbers(_: str, as_json: str, arrived: Any) -> bool:
    """Where PostgreSQL's JSON has strings of digits, what arrives are numbers."""
    return isinstance(arrived, str) and is_alike(read(arrived), read(as_json.replace('"', "")))


def doubles(_: str, as_json: str, arrived: Any) -> bool:
    """Other digits can name the same double; zero has a sign."""
    return isinstance(arrived, str) and repr(floats(arrived)) == repr(floats(as_json))


def singles(_: str, as_json: str, arrived: Any) -> bool:
    """A float4 becomes the double of the same value here too."""

    def widened(value: Any) -> Any:
        if isinstance(value, list):
            return [widened(item) for item in value]
        return struct.unpack("f", struct.pack("f", value))[0] if isinstance(value, float) else value

    return isinstance(arrived, str) and repr(floats(arrived)) == repr(widened(floats(as_json)))


def moneys(_: str, as_json: str, arrived: Any) -> bool:
    """Where PostgreSQL's JSON has the strings of the locale C, what arrives are numbers."""
    return isinstance(arrived, str) and read(arrived) == read(re.sub(r'"(-?)\$([0-9,.]+)"', lambda found: found[1] + found[2].replace(",", ""), as_json))


def geometry(text: str, _: str, arrived: Any) -> bool:
    """The text is the hexadecimal form of the bytes."""
    return isinstance(arrived, bytes | bytearray) and bytes(arrived).hex().upper() == text


def geometries(text: str, _: str, arrived: Any) -> bool:
    """In arrays it is the text that arrives; of PostgreSQL's JSON only an approximation is."""
    as_json = re.sub(r"[0-9A-F]{2,}", r'"\g<0>"', text.replace("NULL", "null"))
    return isinstance(arrived, str) and json.loads(arrived) == json.loads(as_json.translate({ord("{"): "[", ord("}"): "]", ord(":"): ","}))


def is_alike(one: Any, other: Any) -> bool:
    """Whether they are the same JSON; to Python true is 1."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(is_alike(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(is_alike, one, other))
    return bool(one == other)


def floats(text: str) -> Any:
    return json.loads(text, parse_int=float)


def read(text: str) -> Any:
    """JSON with every digit of its numbers."""
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)
