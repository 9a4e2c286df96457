//! What an application says about its columns before the data does: names, and types by their usual spellings.

use std::collections::HashSet;

use serde_json::Value as Json;

use crate::error::{Error, ErrorKind, Result};
use crate::names::{MAX_COLUMNS, shown, too_many_columns};
use crate::types::SourceType;

/// A column that the application announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// Its key in rows that are objects, and its name in any case.
    pub name: String,
    /// Its type; without one the data decides.
    pub declared_type: Option<SourceType>,
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
                    Some(Json::String(text)) => (name, Some(declared_type(text)?)),
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

fn declared_type(text: &str) -> Result<SourceType> {
    SourceType::declared(text).ok_or_else(|| {
        Error::new(ErrorKind::Data, format!("unknown column type {}", shown(text))).with_hint(
            "Use one of boolean, smallint, integer, bigint, numeric(p,s), double precision, text, uuid, date, time, \
             timestamp, timestamptz, bytea, json, jsonb, or leave the type out.",
        )
    })
}

fn malformed(problem: String) -> Error {
    Error::new(ErrorKind::Data, format!("malformed result columns: {problem}"))
        .with_hint(r#"Give names, as in ["a", "b"], or names and types, as in [{"name": "a", "type": "date"}]."#)
}
