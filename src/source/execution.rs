//! Reading one execution, as the watch's owner in the sandbox, into spool files: the JSON of its row, or what the owner's
//! function or view makes of it.
#![allow(unsafe_code)]

use std::path::Path;

use bridge_core::json::{Declared, Inference, PlanOptions, Rows, TokenSink, parse_result_columns};
use bridge_core::spool::{SpoolOptions, SpoolWriter, Stamp, TimeWindow};
use chrono::Utc;
use pgrx::datum::AnyElement;
use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::spi::{SpiHeapTupleData, quote_identifier};
use uuid::Uuid;

use super::json_text::walk_json;
use super::jsonb::Jsonb;
use super::query::{QueryOptions, QueryResult, read_query};
use super::spooled;
use crate::bound::Bound;
use crate::error::{Error, Result};
use crate::sandbox;
use crate::watches::{Access, Held, Key, ResultQuery, ResultSource, Watch, column_type};

/// What the reader needs to know of an upload.
pub struct ReadOptions<'a> {
    pub execution_id: &'a str,
    pub user_id: Option<&'a str>,
    pub upload_id: Uuid,
    pub spool: &'a Path,
    pub plan: PlanOptions,
    pub files: SpoolOptions,
    /// Told from time to time how many rows were read, where rows come one by one.
    pub progress: &'a dyn Fn(u64),
}

impl ReadOptions<'_> {
    fn stamp(&self) -> Stamp {
        Stamp {
            execution_id: self.execution_id.to_owned(),
            user_id: self.user_id.map(str::to_owned),
            upload_id: self.upload_id,
            uploaded_at: Utc::now(),
        }
    }
}

/// Reads the result of an execution into the spool. Needs a transaction, which may be read-only.
///
/// # Errors
/// If the row is gone, or its result is malformed or cannot be held by Snowflake.
pub fn read(watch: &Watch, options: &ReadOptions<'_>) -> Result<QueryResult> {
    with_row(watch, options, i64::MAX, |row| row.read(options))
}

/// As [`read`] of a result in the execution's own row, if it takes no more than so many bytes as it is stored; `None` if not.
///
/// # Errors
/// As [`read`].
pub fn read_small(
    watch: &Watch,
    most_bytes: i64,
    options: &ReadOptions<'_>,
) -> Result<Option<QueryResult>> {
    with_row(watch, options, most_bytes, |row| {
        let is_small = row.values.get::<bool>(5)?;
        (is_small != Some(false))
            .then(|| row.read(options))
            .transpose()
    })
}

/// The row of an execution, as [`row_query`] gives it, and what gives its result if the row does not.
struct Row<'a> {
    values: SpiHeapTupleData<'a>,
    result: Option<&'a ResultQuery>,
}

impl Row<'_> {
    fn read(&self, options: &ReadOptions<'_>) -> Result<QueryResult> {
        let mut read = match self.result {
            Some(query) => read_result(query, options)?,
            None => encode(&self.values, options)?,
        };
        read.manifest.window = TimeWindow::new(self.values.get(3)?, self.values.get(4)?);
        Ok(read)
    }
}

/// Does something with the execution's row, as the watch's owner in the sandbox.
fn with_row<T>(
    watch: &Watch,
    options: &ReadOptions<'_>,
    most_bytes: i64,
    work: impl FnOnce(&Row<'_>) -> Result<T>,
) -> Result<T> {
    let held = watch.hold_existing(Access::Read)?;
    let key = held.key()?;
    let query = row_query(&held, &key);
    let result = held.result_query()?;
    sandbox::as_table_owner(watch.owner.oid(), || {
        query.run_prepared(|query| {
            let args = [key.id.value(options.execution_id)?, most_bytes.into()];
            Spi::connect(|client| {
                let values = query.select(client, 1, &args)?.next().ok_or_else(|| {
                    Error::missing(format!(
                        "execution \"{}\" does not exist any more",
                        options.execution_id
                    ))
                })?;
                work(&Row {
                    values,
                    result: result.as_ref(),
                })
            })
        })
    })
}

fn read_result(query: &ResultQuery, options: &ReadOptions<'_>) -> Result<QueryResult> {
    let id = query.id.value(options.execution_id)?;
    query.statement.run(|text| {
        read_query(
            text.as_bytes(),
            Some(&id),
            &QueryOptions {
                stamp: options.stamp(),
                spool: options.spool,
                plan: options.plan,
                files: options.files,
                progress: options.progress,
                may_take: &|_| spooled::require_space(),
            },
        )
    })
}

/// Result, the text of its columns, and the two ends of the time window, each NULL where the row does not hold it; and whether the
/// result takes no more bytes than `$2`: one that does is not looked at.
fn row_query(held: &Held<'_>, key: &Key) -> Bound {
    let (rows, columns) = match &held.watch.result {
        ResultSource::Columns { rows, columns } => (Some(quote_identifier(rows)), columns.as_ref()),
        ResultSource::Function(_) | ResultSource::Relation(_) => (None, None),
    };
    // The relation may have a column for them, as the standard one has.
    let parameters = column_type(held.watch.relation, "parameters").ok();
    held.statement(format!(
        "select {}, {}, {}, {}, {} from {} where {}",
        rows.as_deref().unwrap_or("null"),
        columns.map_or("null".to_owned(), |name| {
            format!("{}::pg_catalog.text", quote_identifier(name))
        }),
        parameter(parameters, "time_window_start"),
        parameter(parameters, "time_window_end"),
        rows.as_deref()
            .map_or("$2 operator(pg_catalog.>=) 0".to_owned(), |rows| format!(
                "pg_catalog.pg_column_size({rows})::pg_catalog.int8 operator(pg_catalog.<=) $2"
            )),
        held.name,
        key.condition()
    ))
}

/// One of the execution's parameters, of a column of this type, if it is a text or number. Of the others nothing is read, so that none can
/// be in the way.
fn parameter(kind: Option<pg_sys::Oid>, key: &str) -> String {
    let json = match kind {
        Some(pg_sys::JSONOID) => "json",
        Some(pg_sys::JSONBOID) => "jsonb",
        _ => return "null::pg_catalog.text".to_owned(),
    };
    format!(
        "case when pg_catalog.{json}_typeof(parameters operator(pg_catalog.->) '{key}') in ('string', 'number') \
         then parameters operator(pg_catalog.->>) '{key}' end"
    )
}

/// The result in the execution's own row, as long as SPI keeps that.
enum InlineResult {
    Json(pg_sys::Datum),
    Jsonb(Jsonb),
}

impl InlineResult {
    fn of(value: AnyElement) -> Result<Self> {
        match value.oid() {
            pg_sys::JSONOID => Ok(Self::Json(value.datum())),
            // SAFETY: the value is of that type, and the SPI context outlives this.
            pg_sys::JSONBOID => Ok(Self::Jsonb(unsafe { Jsonb::from_datum(value.datum()) })),
            _ => Err(Error::invalid(
                "the column of the results is neither json nor jsonb any more",
            )
            .hint("Give the column its type back, or call snowflake_bridge.watch with the column that holds the results now.")),
        }
    }

    fn infer(&self, declared: Option<&[Declared]>, options: &ReadOptions<'_>) -> Result<Inference> {
        match self {
            Self::Json(value) => {
                let mut inference = Inference::new(declared, options.plan);
                // SAFETY: the value is of that type.
                unsafe { walk_json(*value, &mut inference) }?;
                Ok(inference)
            }
            Self::Jsonb(value) => value.infer(declared, options.plan, options.files.aside),
        }
    }

    fn walk(&self, sink: &mut impl TokenSink) -> Result<()> {
        match self {
            // SAFETY: the value is of that type.
            Self::Json(value) => unsafe { walk_json(*value, sink) },
            Self::Jsonb(value) => value.walk(sink),
        }
    }
}

fn encode(row: &SpiHeapTupleData<'_>, options: &ReadOptions<'_>) -> Result<QueryResult> {
    let declared = match row.get::<String>(2)? {
        Some(columns) => parse_result_columns(&columns)?,
        None => None,
    };
    let result = row.get_datum_by_ordinal(1)?.value::<AnyElement>()?;
    let result = result.map(InlineResult::of).transpose()?;

    let inference = match &result {
        Some(result) => result.infer(declared.as_deref(), options)?,
        None => Inference::new(declared.as_deref(), options.plan),
    };
    let plan = inference.finish()?;

    let mut writer = SpoolWriter::create(
        options.spool,
        &plan.result_columns(),
        &options.stamp(),
        &options.files,
    )?;
    let mut affected = Vec::new();
    if let Some(result) = &result {
        let mut rows = Rows::new(&plan, &mut writer);
        result.walk(&mut rows)?;
        affected = rows.finish()?;
    }
    Ok(QueryResult {
        manifest: writer.finish()?,
        affected,
    })
}
