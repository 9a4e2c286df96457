//! The database's types by their names, and which column each gets in Snowflake: the same for what a query gives and for what
//! an application declares.

use super::{ColumnType, MAX_PRECISION, MAX_SCALE};

/// An amount of money is an integer of 64 bits, of which the database's locale says how many digits stand after the point.
pub const MONEY_PRECISION: u8 = 19;

/// The digits of a numeric that the database lets a user declare, in all and after the point.
const DECLARED_PRECISION: std::ops::RangeInclusive<i32> = 1..=1000;
const DECLARED_SCALE: std::ops::RangeInclusive<i32> = -1000..=1000;

/// A `float(n)` of up to so many binary digits is a `real`.
const REAL_DIGITS: i32 = 24;

/// A type of the database, told from others as far as their values become something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceType {
    /// `boolean`
    Boolean,
    /// `smallint`
    SmallInt,
    /// `integer`
    Integer,
    /// `oid`, an integer without sign
    Oid,
    /// `bigint`
    BigInt,
    /// `real`
    Real,
    /// `double precision`
    Double,
    /// `numeric` of declared digits that a NUMBER has.
    Number {
        /// Decimal digits in all.
        precision: u8,
        /// Decimal digits after the point.
        scale: u8,
    },
    /// `numeric` whose digits nobody declared, or more of them than a NUMBER has.
    Numeric,
    /// `money`
    Money,
    /// `text` and what is text like it
    Text,
    /// `bytea`
    Bytes,
    /// `uuid`
    Uuid,
    /// `date`
    Date,
    /// `time`
    Time,
    /// `timestamp`
    Timestamp,
    /// `timestamptz`
    TimestampTz,
    /// `json`, `jsonb`, `hstore`, and rows
    Document,
    /// Arrays of any type, and vectors
    Array,
    /// `geometry` and `geography`, which have a binary form.
    Geometry,
    /// Every other type, which has a text form.
    Other,
}

/// The names of the types, those of other databases among them that mean the same.
const NAMES: [(SourceType, &[&str]); 20] = [
    (SourceType::Boolean, &["boolean", "bool"]),
    (SourceType::SmallInt, &["smallint", "int2", "smallserial"]),
    (SourceType::Integer, &["integer", "int", "int4", "serial"]),
    (SourceType::Oid, &["oid"]),
    (SourceType::BigInt, &["bigint", "int8", "long", "bigserial"]),
    (SourceType::Real, &["real", "float4"]),
    (
        SourceType::Double,
        &["double precision", "float8", "float", "double"],
    ),
    (
        SourceType::Numeric,
        &["numeric", "decimal", "number", "dec"],
    ),
    (SourceType::Money, &["money"]),
    (
        SourceType::Text,
        &[
            "text",
            "varchar",
            "char",
            "character varying",
            "character",
            "bpchar",
            "\"char\"",
            "citext",
            "name",
            "string",
        ],
    ),
    (SourceType::Bytes, &["bytea", "binary"]),
    (SourceType::Uuid, &["uuid"]),
    (SourceType::Date, &["date"]),
    (SourceType::Time, &["time", "time without time zone"]),
    (
        SourceType::Timestamp,
        &[
            "timestamp",
            "timestamp without time zone",
            "datetime",
            "timestamp_ntz",
        ],
    ),
    (
        SourceType::TimestampTz,
        &["timestamptz", "timestamp with time zone", "timestamp_tz"],
    ),
    (
        SourceType::Document,
        &["json", "jsonb", "hstore", "variant", "object"],
    ),
    (SourceType::Array, &["array", "int2vector", "oidvector"]),
    (SourceType::Geometry, &["geometry", "geography"]),
    (
        SourceType::Other,
        &[
            "aclitem",
            "bit",
            "bit varying",
            "box",
            "cid",
            "cidr",
            "circle",
            "datemultirange",
            "daterange",
            "inet",
            "int4multirange",
            "int4range",
            "int8multirange",
            "int8range",
            "interval",
            "jsonpath",
            "line",
            "lseg",
            "macaddr",
            "macaddr8",
            "nummultirange",
            "numrange",
            "path",
            "pg_dependencies",
            "pg_lsn",
            "pg_mcv_list",
            "pg_ndistinct",
            "pg_node_tree",
            "pg_snapshot",
            "point",
            "polygon",
            "refcursor",
            "regclass",
            "regcollation",
            "regconfig",
            "regdictionary",
            "regnamespace",
            "regoper",
            "regoperator",
            "regproc",
            "regprocedure",
            "regrole",
            "regtype",
            "tid",
            "time with time zone",
            "timetz",
            "tsmultirange",
            "tsquery",
            "tsrange",
            "tstzmultirange",
            "tstzrange",
            "tsvector",
            "txid_snapshot",
            "varbit",
            "xid",
            "xid8",
            "xml",
        ],
    ),
];

impl SourceType {
    /// The column that values of the type get. `None` where the type alone does not say it: the digits of a
    /// [`Numeric`](Self::Numeric) are those of the data, and those of [`Money`](Self::Money) are the locale's.
    #[must_use]
    pub fn column_type(self) -> Option<ColumnType> {
        let number = |precision, scale| ColumnType::Number { precision, scale };
        Some(match self {
            Self::Boolean => ColumnType::Boolean,
            Self::SmallInt => number(5, 0),
            Self::Integer | Self::Oid => number(10, 0),
            Self::BigInt => number(19, 0),
            Self::Real | Self::Double => ColumnType::Float,
            Self::Number { precision, scale } => number(precision, scale),
            Self::Numeric | Self::Money => return None,
            Self::Text | Self::Uuid | Self::Other => ColumnType::Text,
            Self::Bytes | Self::Geometry => ColumnType::Binary,
            Self::Date => ColumnType::Date,
            Self::Time => ColumnType::Time,
            Self::Timestamp => ColumnType::TimestampNtz,
            Self::TimestampTz => ColumnType::TimestampTz,
            Self::Document => ColumnType::Variant,
            Self::Array => ColumnType::Array,
        })
    }

    /// `numeric(precision, scale)`. A scale below zero or above the precision is something that Snowflake lacks, so the precision
    /// grows instead.
    #[must_use]
    pub fn numeric(precision: i32, scale: i32) -> Self {
        let (precision, scale) = if scale < 0 {
            (precision.saturating_sub(scale), 0)
        } else {
            (precision.max(scale), scale)
        };
        match (u8::try_from(precision), u8::try_from(scale)) {
            (Ok(precision @ 1..=MAX_PRECISION), Ok(scale @ 0..=MAX_SCALE)) => {
                Self::Number { precision, scale }
            }
            _ => Self::Numeric,
        }
    }

    /// A type that an application declares, by one of its usual names in any case. `None` if there is no such type, or JSON has
    /// another thing for its values than they are: GeoJSON.
    #[must_use]
    pub fn declared(name: &str) -> Option<Self> {
        Self::named(&name.trim().to_ascii_lowercase()).filter(|found| *found != Self::Geometry)
    }

    /// The type of a name in lower case, with its arguments if it has any; `None` if there is none.
    fn named(text: &str) -> Option<Self> {
        if text.ends_with("[]") {
            return Some(Self::Array);
        }
        // varchar(20), numeric(10,2), timestamp(3) with time zone: the digits can stand in the middle.
        let (name, arguments) = match text.split_once('(') {
            None => (text.to_owned(), Vec::new()),
            Some((head, rest)) => {
                let (inner, tail) = rest.split_once(')')?;
                let arguments: Result<Vec<i32>, _> = inner
                    .split(',')
                    .map(|number| number.trim().parse())
                    .collect();
                (format!("{head} {tail}"), arguments.ok()?)
            }
        };
        let words: Vec<&str> = name.split_ascii_whitespace().collect();
        let name = words.join(" ");
        // interval day to second
        if name.starts_with("interval ") {
            return Some(Self::Other);
        }
        let (found, _) = NAMES
            .iter()
            .find(|(_, names)| names.contains(&name.as_str()))?;
        match (found, arguments.as_slice()) {
            (Self::Numeric, []) => Some(Self::Numeric),
            (Self::Numeric, [precision]) => Self::with_digits(*precision, 0),
            (Self::Numeric, [precision, scale]) => Self::with_digits(*precision, *scale),
            (Self::Numeric, _) => None,
            (Self::Double, [digits]) if name == "float" && *digits <= REAL_DIGITS => {
                Some(Self::Real)
            }
            (found, _) => Some(*found),
        }
    }

    fn with_digits(precision: i32, scale: i32) -> Option<Self> {
        let is_possible =
            DECLARED_PRECISION.contains(&precision) && DECLARED_SCALE.contains(&scale);
        is_possible.then(|| Self::numeric(precision, scale))
    }
}

#[cfg(test)]
mod tests;
