//! What an application says about its columns before the data does: names, and types by their usual spellings.

use std::collections::HashSet;

use serde_json::Value as Json;

use crate::error::{Error, ErrorKind, Result};
use crate::names::{MAX_COLUMNS, shown, too_many_columns};
use crate::types::ColumnType;

/// A column that the application announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// Its key in rows that are objects, and its name in any case.
    pub name: String,
    /// Its type; without one the data decides.
    pub declared_type: Option<DeclaredType>,
}

/// Types that have none of their own in Snowflake: their values are strings in JSON, and stay those. Money is among them,
/// since its string has the sign of its currency.
pub(super) const TEXT_FORMS: [&str; 54] = [
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
    "money",
    "nummultirange",
    "numrange",
    "path",
    "pg_lsn",
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
];

/// A type that an application can declare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeclaredType {
    /// Values of exactly that column type.
    Column(ColumnType),
    /// A decimal number whose digits the data decides.
    Numeric,
    /// A UUID, as text in its usual form.
    Uuid,
}

impl DeclaredType {
    /// Reads a type by one of its usual names, in any case.
    ///
    /// # Errors
    /// `Data` when there is no such type, or its digits are more than Snowflake has.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim().to_ascii_lowercase();
        if text.ends_with("[]") {
            return Ok(Self::Column(ColumnType::Array));
        }
        let unknown = || {
            Error::new(ErrorKind::Data, format!("unknown column type {}", shown(&text))).with_hint(
                "Use one of boolean, smallint, integer, bigint, numeric(p,s), double precision, text, uuid, date, time, \
                 timestamp, timestamptz, bytea, json, jsonb, or leave the type out.",
            )
        };
        // varchar(20), numeric(10,2), timestamp(3) with time zone: the digits can stand in the middle.
        let (name, arguments) = match text.split_once('(') {
            None => (text.clone(), Vec::new()),
            Some((head, rest)) => {
                let (inner, tail) = rest.split_once(')').ok_or_else(unknown)?;
                let arguments: Result<Vec<i32>, _> = inner
                    .split(',')
                    .map(|number| number.trim().parse())
                    .collect();
                (format!("{head} {tail}"), arguments.map_err(|_| unknown())?)
            }
        };
        let words: Vec<&str> = name.split_ascii_whitespace().collect();
        let column_type = match words.join(" ").as_str() {
            "boolean" | "bool" => ColumnType::Boolean,
            "smallint" | "int2" | "smallserial" => ColumnType::number(5, 0)?,
            "integer" | "int" | "int4" | "serial" | "oid" => ColumnType::number(10, 0)?,
            "bigint" | "int8" | "long" | "bigserial" => ColumnType::number(19, 0)?,
            "numeric" | "decimal" | "number" | "dec" => match arguments.as_slice() {
                [] => return Ok(Self::Numeric),
                [precision] => number(*precision, 0)?,
                [precision, scale] => number(*precision, *scale)?,
                _ => return Err(unknown()),
            },
            "double precision" | "double" | "float" | "float8" | "real" | "float4" => {
                ColumnType::Float
            }
            "text" | "varchar" | "character varying" | "character" | "char" | "bpchar"
            | "citext" | "name" | "\"char\"" | "string" => ColumnType::Text,
            name if TEXT_FORMS.contains(&name) || name.starts_with("interval ") => ColumnType::Text,
            "uuid" => return Ok(Self::Uuid),
            "date" => ColumnType::Date,
            "time" | "time without time zone" => ColumnType::Time,
            "timestamp" | "datetime" | "timestamp without time zone" | "timestamp_ntz" => {
                ColumnType::TimestampNtz
            }
            "timestamptz" | "timestamp with time zone" | "timestamp_tz" => ColumnType::TimestampTz,
            "bytea" | "binary" => ColumnType::Binary,
            "json" | "jsonb" | "hstore" | "variant" | "object" => ColumnType::Variant,
            "array" => ColumnType::Array,
            _ => return Err(unknown()),
        };
        Ok(Self::Column(column_type))
    }
}

/// `numeric(precision, scale)` as a NUMBER that holds every such number: a scale below zero or above the precision is
/// something that Snowflake lacks, so the precision grows instead.
fn number(precision: i32, scale: i32) -> Result<ColumnType> {
    let (precision, scale) = if scale < 0 {
        (precision.saturating_sub(scale), 0)
    } else {
        (precision.max(scale), scale)
    };
    match (u8::try_from(precision), u8::try_from(scale)) {
        (Ok(precision), Ok(scale)) => ColumnType::number(precision, scale),
        _ => ColumnType::number(u8::MAX, 0),
    }
}

/// The longest text of `result_columns`, which is read into memory as a whole: some hundred bytes for each column that a
/// table can have.
const MAX_DECLARATION: usize = 4 << 20;

/// Reads the text of `result_columns`: names, or objects with a `name` and perhaps a `type`. JSON null and an empty array say nothing.
///
/// # Errors
/// `Data` when it has another form, is longer than 4 MB, a type is unknown, or a name comes twice.
pub fn parse_result_columns(json: &str) -> Result<Option<Vec<Declared>>> {
    if json.len() > MAX_DECLARATION {
        return Err(malformed(format!(
            "it is longer than {MAX_DECLARATION} bytes"
        )));
    }
    // The parser's own message may quote the text, and what is wrong with valid JSON is how deep it is.
    let json = serde_json::from_str(json)
        .map_err(|_| malformed("it is nested too deeply, or no JSON".to_owned()))?;
    let entries = match &json {
        Json::Null => return Ok(None),
        Json::Array(entries) if entries.is_empty() => return Ok(None),
        Json::Array(entries) => entries,
        _ => return Err(malformed("it is not an array".to_owned())),
    };
    if entries.len() > MAX_COLUMNS {
        return Err(too_many_columns());
    }
    let mut names = HashSet::new();
    let mut columns = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let position = index + 1;
        let (name, declared_type) = match entry {
            Json::String(name) => (name, None),
            Json::Object(fields) => {
                let Some(Json::String(name)) = fields.get("name") else {
                    return Err(malformed(format!("entry {position} has no name")));
                };
                match fields.get("type") {
                    None | Some(Json::Null) => (name, None),
                    Some(Json::String(text)) => (name, Some(DeclaredType::parse(text)?)),
                    Some(_) => {
                        return Err(malformed(format!(
                            "the type of entry {position} is not a string"
                        )));
                    }
                }
            }
            _ => {
                return Err(malformed(format!(
                    "entry {position} is neither a name nor an object"
                )));
            }
        };
        if !names.insert(name.as_str()) {
            return Err(malformed(format!("the column {} comes twice", shown(name))));
        }
        columns.push(Declared {
            name: name.clone(),
            declared_type,
        });
    }
    Ok(Some(columns))
}

fn malformed(problem: String) -> Error {
    Error::new(ErrorKind::Data, format!("malformed result columns: {problem}"))
        .with_hint(r#"Give names, as in ["a", "b"], or names and types, as in [{"name": "a", "type": "date"}]."#)
}
