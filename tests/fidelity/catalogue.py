"""The types: what each holds at its edges, what Snowflake cannot hold, how values are drawn, and how they are compared."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fidelity import compare
from fidelity.compare import Comparison
from fidelity.drawn import (
    Draw,
    addresses,
    bits,
    blobs,
    dates,
    decimals,
    documents,
    doubles,
    floats,
    instants,
    integers,
    intervals,
    multiranges,
    paths,
    places,
    ranges,
    texts,
    times,
    timestamps,
    uuids,
    words,
    zoned_times,
)


@dataclass(frozen=True)
class Type:
    """One type of PostgreSQL. `values` and `refused` are its own input texts, and so is `never`, those of the refused that no
    array may have either: of the others it has strings. `made` are expressions, for what no text makes."""

    name: str
    sql: str
    same: Comparison
    values: tuple[str, ...]
    refused: tuple[str, ...] = ()
    draw: Draw | None = None
    made: tuple[str, ...] = ()
    # Whether PostgreSQL makes JSON of all values.
    has_json: bool = True
    never: tuple[str, ...] = ()

    def is_same(self, text: str | None, as_json: str, arrived: Any) -> bool:
        """Whether the value arrived; NULL as NULL."""
        return arrived is None if text is None else self.same(text, as_json, arrived)

    def array(self) -> Type:
        """Arrays of the type: without elements, with all that they may have and a NULL, of two dimensions, and drawn ones."""
        is_place = self.same is compare.geometry
        delimiter = ":" if is_place else ";" if self.name == "box" else ","

        def array(items: Iterable[str]) -> str:
            return "{" + delimiter.join(items) + "}"

        inside = (*self.values, *(text for text in self.refused if text not in self.never))
        some = [element(text) for text in inside if len(text) < 1000]
        two, draw = array(some[:2]), self.draw
        return Type(
            f"{self.name}_array",
            f"{self.sql}[]",
            {
                "oid": compare.numbers,
                "money": compare.moneys,
                "real": compare.singles,
                "double precision": compare.doubles,
            }.get(self.sql, compare.geometries if is_place else compare.array),
            ("{}", array([*some, "NULL"]), array([two, two])),
            tuple(array(["NULL", element(text)]) for text in self.never),
            (lambda rng: array(element(draw(rng)) for _ in range(rng.randrange(5)))) if draw else None,
        )


def element(text: str) -> str:
    """A value as the text of an array has it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def row(*values: str) -> str:
    """The text of a row; no text is NULL."""
    return "(" + ",".join('"' + text.replace("\\", "\\\\").replace('"', '""') + '"' if text else "" for text in values) + ")"


# One digit more than Snowflake's numbers have, and no double; and a key that an object has twice.
DIGITS = "1" * 39
TWICE = '{"a": 1, "a": 2}'
OUT_OF_TIME = ("infinity", "-infinity", "0001-12-31 BC", "10000-01-01")

SCALARS: tuple[Type, ...] = (
    Type("boolean", "boolean", compare.boolean, ("true", "false")),
    Type("int2", "smallint", compare.number, ("-32768", "-1", "0", "32767"), (), integers(16)),
    Type("int4", "integer", compare.number, ("-2147483648", "0", "2147483647"), (), integers(32)),
    Type("int8", "bigint", compare.number, ("-9223372036854775808", "0", "9223372036854775807"), (), integers(64)),
    Type("oid", "oid", compare.number, ("0", "4294967295"), (), lambda rng: str(rng.randrange(2**32))),
    Type(
        "float8",
        "double precision",
        compare.double,
        ("0", "-0", "NaN", "Infinity", "-Infinity", "1.7976931348623157e308", "5e-324", "0.1", "1e23"),
        (),
        doubles,
    ),
    Type("float4", "real", compare.single, ("0", "-0", "NaN", "-Infinity", "3.4028235e38", "1e-45", "0.1"), (), floats),
    Type(
        "numeric_12_2", "numeric(12,2)", compare.number, ("0", "9999999999.99", "-0.01"), ("NaN",), decimals(12, 2)
    ),
    Type(
        "numeric_38_0", "numeric(38,0)", compare.number, ("9" * 38, "-" + "9" * 38, "0"), ("NaN",), decimals(38, 0)
    ),
    Type("numeric_38_37", "numeric(38,37)", compare.number, ("9." + "9" * 37, "-0." + "0" * 36 + "1"), ()),
    Type("numeric_38_38", "numeric(38,38)", compare.digits, ("0.5", "-0.25"), ("0." + "9" * 38,), never=("0." + "9" * 38,)),
    Type("numeric_5_minus_2", "numeric(5,-2)", compare.number, ("0", "9999900", "-12300")),
    Type("numeric_3_5", "numeric(3,5)", compare.number, ("0.00999", "-0.00001")),
    Type(
        "numeric",
        "numeric",
        compare.digits,
        ("0", "-1.5", "0.0000000001", "1234567890123456789012345678.0123456789"),
        ("NaN", "Infinity", "1e40", "1e-38", DIGITS, f"0.{DIGITS}"),
        decimals(38, 10),
        never=(DIGITS, f"0.{DIGITS}"),
    ),
    # More digits are declared than a NUMBER has; the zeros that the value is filled up with are none of it.
    Type(
        "numeric_50_45",
        "numeric(50,45)",
        compare.digits,
        ("0", "1.5", "-99999.0000000001", "0." + "0" * 32 + "1", "12345.12345678901234567890123456789"),
        ("NaN", "0." + "0" * 44 + "1"),
        decimals(15, 10),
    ),
    Type(
        "money",
        "money",
        compare.money,
        ("0", "12.34", "-92233720368547758.08", "92233720368547758.07"),
        (),
        decimals(17, 2),
    ),
    Type("text", "text", compare.text, ("", " ", "\\N", "NULL", "null", "''", "ä€𝄞", "a\nb\tc\r", "x" * 100_000), (), texts),
    Type("varchar", "varchar(40)", compare.text, ("", "é" * 40), (), texts),
    Type("char", "char(5)", compare.padded, ("", "ab", "abcde")),
    Type("name", "name", compare.text, ("a", "x" * 63), (), words),
    Type("inner_char", '"char"', compare.text, ("a", "")),
    Type("bpchar", "bpchar", compare.text, ("", "ab"), (), words),
    Type("bytea", "bytea", compare.binary, ("\\x", "\\x00", "\\xff00ff", "\\x" + "ab" * 50_000), (), blobs),
    Type("uuid", "uuid", compare.text, (str(uuid.UUID(int=0)), str(uuid.UUID(int=2**128 - 1))), (), uuids),
    Type("date", "date", compare.date, ("0001-01-01", "9999-12-31", "1970-01-01", "1582-10-10"), OUT_OF_TIME, dates),
    Type("time", "time", compare.time, ("00:00", "23:59:59.999999", "12:34:56"), ("24:00",), times),
    Type(
        "timestamp",
        "timestamp",
        compare.timestamp,
        ("0001-01-01 00:00:00", "9999-12-31 23:59:59.999999", "1969-12-31 23:59:59.999999", "2262-04-11 23:47:16.854776"),
        OUT_OF_TIME,
        timestamps,
    ),
    Type(
        "timestamptz",
        "timestamptz",
        compare.instant,
        ("0001-01-01 00:00:00+00", "9999-12-31 23:59:59.999999+00", "2024-03-31 02:30:00+02"),
        OUT_OF_TIME,
        instants,
    ),
    Type("timetz", "timetz", compare.text, ("00:00:00+15:59", "24:00:00-12", "12:34:56.789+05:45"), (), zoned_times),
    Type(
        "interval",
        "interval",
        compare.text,
        ("0", "1 year -2 mons 3 days 04:05:06.000007", "-178000000 years", "1000000:00:00"),
        (),
        intervals,
    ),
    Type("bit", "bit(3)", compare.text, ("000", "101"), (), bits(3)),
    Type("varbit", "bit varying", compare.text, ("", "1", "0" * 100), (), bits(None)),
    Type("inet", "inet", compare.address, ("0.0.0.0", "192.168.1.5/24", "::1", "2001:db8::/32"), (), addresses),
    Type("cidr", "cidr", compare.text, ("10.0.0.0/8", "::/0")),
    Type("macaddr", "macaddr", compare.text, ("08:00:2b:01:02:03",)),
    Type("macaddr8", "macaddr8", compare.text, ("08:00:2b:01:02:03:04:05",)),
    Type(
        "jsonb",
        "jsonb",
        compare.document,
        ("null", "0", '""', "[]", "{}", '"\\\\N"', '{"a": {"b": [1, null, {"c": "ä€𝄞"}]}}', "1" * 38, '{"A": 1, "a": 2}', "[1e300, -2.5e-40, 1e-37]", "1e300", "5e-324"),
        (DIGITS, "1e400", '{"a": 1e-400}'),
        documents,
        never=(DIGITS, "1e400", '{"a": 1e-400}'),
    ),
    Type("json", "json", compare.document, ('{"a": 1.50}', " [1 , 2] ", "null"), (TWICE,), documents, never=(TWICE,)),
    Type("xml", "xml", compare.text, ("<a/>", "<a>ä</a>")),
    Type("tsvector", "tsvector", compare.text, ("'a':1 'b':2A",)),
    Type("tsquery", "tsquery", compare.text, ("'a' & 'b'",)),
    Type("pg_lsn", "pg_lsn", compare.text, ("0/0", "FFFFFFFF/FFFFFFFF")),
    Type("point", "point", compare.text, ("(1,2)", "(-0.5,1e300)")),
    Type("polygon", "polygon", compare.text, ("((0,0),(1,1),(1,0))",)),
    Type("int4range", "int4range", compare.text, ("empty", "[1,5)", "(,)"), (), ranges(lambda rng: str(rng.randint(-999, 999)))),
    Type("int8range", "int8range", compare.text, ("[-9223372036854775808,9223372036854775807)",)),
    Type("numrange", "numrange", compare.text, ("[1.50,)", "(-Infinity,NaN)"), (), ranges(decimals(12, 2))),
    Type("daterange", "daterange", compare.text, ("[2024-01-01,infinity)", "empty"), (), ranges(dates)),
    Type("tsrange", "tsrange", compare.text, ('["2024-01-01 00:00:00","9999-12-31 23:59:59.999999"]',), (), ranges(timestamps)),
    Type("tstzrange", "tstzrange", compare.text, ('["2024-01-01 00:00:00+00",infinity)',), (), ranges(instants)),
    Type("int4multirange", "int4multirange", compare.text, ("{}", "{[1,2),[5,9)}")),
    Type("int8multirange", "int8multirange", compare.text, ("{}", "{[1,2),[5,9)}")),
    Type("nummultirange", "nummultirange", compare.text, ("{[1.5,2.5)}",), (), multiranges(decimals(12, 2))),
    Type("datemultirange", "datemultirange", compare.text, ("{(,2024-01-01)}",), (), multiranges(dates)),
    Type("tsmultirange", "tsmultirange", compare.text, ("{}",), (), multiranges(timestamps)),
    Type("tstzmultirange", "tstzmultirange", compare.text, ("{}",), (), multiranges(instants)),
    Type("line", "line", compare.text, ("{1,-1,0}",)),
    Type("lseg", "lseg", compare.text, ("[(0,0),(1,-1e-300)]",), (), paths(2)),
    Type("box", "box", compare.text, ("(1,1),(0,0)",), (), paths(2)),
    Type("path", "path", compare.text, ("((0,0),(1,1))", "[(0,0),(1,1),(2,0)]"), (), paths(3)),
    Type("circle", "circle", compare.text, ("<(1,2),3.5>",)),
    Type("jsonpath", "jsonpath", compare.text, ('$."a"[*]?(@ > 1)',)),
    Type("pg_snapshot", "pg_snapshot", compare.text, ("10:20:10,14,15",)),
    Type("txid_snapshot", "txid_snapshot", compare.text, ("10:20:10,14,15",)),
    Type("tid", "tid", compare.text, ("(0,1)", "(4294967295,65535)")),
    Type("xid", "xid", compare.text, ("0", "4294967295")),
    Type("xid8", "xid8", compare.text, ("0", "18446744073709551615")),
    Type("cid", "cid", compare.text, ("4294967295",)),
    Type("refcursor", "refcursor", compare.text, ("", "a cursor")),
    Type("aclitem", "aclitem", compare.text, ("app=r*w/app", "=r/app")),
    Type("regclass", "regclass", compare.text, ("pg_class",)),
    Type("regcollation", "regcollation", compare.text, ('"C"',)),
    Type("regconfig", "regconfig", compare.text, ("english",)),
    Type("regdictionary", "regdictionary", compare.text, ("simple",)),
    Type("regnamespace", "regnamespace", compare.text, ("pg_catalog", "public")),
    Type("regoper", "regoper", compare.text, ("||/",)),
    Type("regoperator", "regoperator", compare.text, ("+(integer,integer)",)),
    Type("regproc", "regproc", compare.text, ("now",)),
    Type("regprocedure", "regprocedure", compare.text, ("abs(integer)",)),
    Type("regrole", "regrole", compare.text, ("app",)),
    Type("regtype", "regtype", compare.text, ("integer", "text[]")),
    Type("cardinal_number", "information_schema.cardinal_number", compare.number, ("0", "2147483647")),
    Type("character_data", "information_schema.character_data", compare.text, ("", "ä")),
    Type("sql_identifier", "information_schema.sql_identifier", compare.text, ("a",)),
    Type("time_stamp", "information_schema.time_stamp", compare.instant, ("2024-01-01 00:00:00.12+00",)),
    Type("yes_or_no", "information_schema.yes_or_no", compare.text, ("YES", "NO")),
    Type("enum", "fidelity_mood", compare.text, ("sad", "it's ok", "ÄÖ")),
    Type("domain", "fidelity_positive", compare.number, ("1", "2147483647")),
    Type("amount", "fidelity_amount", compare.number, ("0", "9999999999.99", "-0.01"), ("NaN",), decimals(12, 2)),
    Type("price", "fidelity_price", compare.number, ("0.01", "9999999999.99"), ("NaN",)),
    Type("day", "fidelity_day", compare.date, ("0001-01-01", "9999-12-31"), OUT_OF_TIME, dates),
    Type("numbers", "fidelity_numbers", compare.array, ("{}", "{1,NULL,-2147483648}", "{{1,2},{3,4}}"), ("[0:1]={1,2}",), never=("[0:1]={1,2}",)),
    Type("composite", "fidelity_pair", compare.document, ('(1,"a,""b""")', "(,)", '(-5,"")')),
    Type("clean_pair", "fidelity_clean_pair", compare.document, ('(1,"a,""b""")', '(-5,)')),
    Type(
        "nested",
        "fidelity_nested",
        compare.document,
        (
            row(row("1", 'a,"b"'), '{"a": [1.50, null, "ä"]}', "2024-02-29", "-0.01", "2147483647"),
            row("(,)", "null", "infinity", "NaN", "1"),
            row("", "1e300", "0044-03-15 BC", "", ""),
            row("", "", "", "", ""),
        ),
        (row("", DIGITS, "", "", ""), row("", "[1e400]", "", "", "")),
        never=(row("", DIGITS, "", "", ""), row("", "[1e400]", "", "", "")),
    ),
    Type("span", "fidelity_span", compare.text, ("empty", "[0.1,1e+300)", "(-Infinity,]", "(,)"), (), ranges(doubles)),
    Type("spans", "fidelity_span_multirange", compare.text, ("{}", "{[1,2),(5,]}"), (), multiranges(doubles)),
    Type("citext", "citext", compare.text, ("Ab", ""), (), texts),
    Type("hstore", "hstore", compare.document, ("", 'a=>1, "b c"=>NULL', '"\\""=>"ä"')),
    Type(
        "geometry",
        "geometry",
        compare.geometry,
        (
            "POINT(1 -2.5)",
            "SRID=4326;POINT(13.4 52.5)",
            "SRID=3857;POINT Z (1 2 3)",
            "POINT M (1 2 3)",
            "POINT ZM (1 2 3 4)",
            "POINT EMPTY",
            "SRID=4326;LINESTRING EMPTY",
            "LINESTRING(0 0, 1e-300 1e300)",
            "POLYGON((0 0, 9 0, 9 9, 0 0), (1 1, 2 1, 2 2, 1 1))",
            "MULTIPOLYGON(((0 0, 1 0, 1 1, 0 0)), ((5 5, 6 5, 6 6, 5 5)))",
            "GEOMETRYCOLLECTION EMPTY",
            "SRID=25832;GEOMETRYCOLLECTION Z (POINT Z (1 2 3), LINESTRING Z (0 0 0, 1 1 1))",
        ),
        (),
        places,
    ),
    Type(
        "geography",
        "geography",
        compare.geometry,
        (
            "POINT(-180 90)",
            "POINT ZM (1 2 3 4)",
            "POINT EMPTY",
            "SRID=4267;POINT(13.4 52.5)",
            "POLYGON((0 0, 9 0, 9 9, 0 0))",
            "GEOMETRYCOLLECTION(POINT(1 2), MULTILINESTRING((0 0, 1 1), (2 2, 3 3)))",
        ),
        (),
        places,
    ),
    Type("geometry_point", "geometry(PointZ,4326)", compare.geometry, ("POINT Z (1 2 3)", "POINT Z EMPTY")),
    Type("geography_point", "geography(Point,4326)", compare.geometry, ("POINT(1 2)",)),
    Type("box2d", "box2d", compare.text, ("BOX(0 0,1 1)",)),
    Type("box3d", "box3d", compare.text, ("BOX3D(0 0 0,1 1 1)",)),
)

# What no text makes.
WITHOUT_INPUT: tuple[Type, ...] = (
    Type("pg_node_tree", "pg_node_tree", compare.text, (), made=("(select adbin from pg_attrdef limit 1)",)),
    *(
        Type(name, name, compare.text, (), made=(f"(select {column} from pg_statistic_ext_data where {column} is not null)",))
        for name, column in (
            ("pg_ndistinct", "stxdndistinct"),
            ("pg_dependencies", "stxddependencies"),
            ("pg_mcv_list", "stxdmcv"),
        )
    ),
)
# Of which there is no JSON, and no array of a type of their own.
WITHOUT_JSON: tuple[Type, ...] = (
    Type(
        "geometry_curves",
        "geometry",
        compare.geometry,
        (
            "CIRCULARSTRING(0 0, 1 1, 2 0)",
            "COMPOUNDCURVE(CIRCULARSTRING(0 0, 1 1, 2 0), (2 0, 3 0))",
            "SRID=4326;MULTISURFACE(CURVEPOLYGON(CIRCULARSTRING(0 0, 4 0, 4 4, 0 4, 0 0)))",
            "TRIANGLE((0 0, 1 0, 0 1, 0 0))",
            "TIN Z (((0 0 0, 0 0 1, 0 1 0, 0 0 0)))",
            "POLYHEDRALSURFACE Z (((0 0 0, 0 0 1, 0 1 1, 0 1 0, 0 0 0)))",
        ),
        has_json=False,
    ),
)
# What no query returns either.
INSIDE_INDEXES = ("gtsvector", "pg_brin_bloom_summary", "pg_brin_minmax_multi_summary")

TYPES: tuple[Type, ...] = (
    *SCALARS,
    *WITHOUT_INPUT,
    *WITHOUT_JSON,
    *(kind.array() for kind in SCALARS),
    Type("int2vector", "int2vector", compare.array, ("1 2 -3",)),
    Type("oidvector", "oidvector", compare.numbers, ("1 4294967295",)),
    Type("deep_array", "int[]", compare.array, ("{{{{{{1,2}}}}}}", "[1:2]={7,8}"), ("[2:3]={7,8}", "[1:1][0:1]={{7,8}}")),
    Type("text_array_null", "text[]", compare.array, ('{NULL,"NULL","",a}', '{"\\"\\\\"}', "{{{a},{b}}}"), ("[-1:0]={a,NULL}",)),
    Type("array_in_row", "fidelity_arrays", compare.document, ('("{1,2}")', "({})", "()"), ('("[0:1]={1,2}")',)),
)
