//! Reading one execution, as the watch's owner in the sandbox, into spool files: the JSON of its row, or what the owner's
//! function or view makes of it.
#![allow(unsafe_code)]

use std::path::Path;

use bridge_core::json::{Inference, PlanOptions, Rows, parse_result_columns};
use bridge_core::spool::{SpoolOptions, SpoolWriter, Stamp, TimeWindow};
use chrono::Utc;
use pgrx::prelude::*;
use pgrx::spi::{SpiHeapTupleData, quote_identifier};
use uuid::Uuid;

use super::jsonb::Jsonb;
use super::query::{QueryOptions, QueryResult, read_query};
use super::values::OutOfRange;
use crate::error::{Error, Result};
use crate::sandbox;
use crate::watches::{ResultSource, Watch, column_type};

/// What the reader needs to know of an upload.
pub struct ReadOptions<'a> {
    pub execution_id: &'a str,
    pub user_id: Option<&'a str>,
    pub upload_id: Uuid,
    pub spool: &'a Path,
    pub plan: PlanOptions,
    pub on_out_of_range: OutOfRange,
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
    watch.check_owner()?;
    let row = row_query(watch)?;
    let result = watch.result_query()?;
    sandbox::as_table_owner(watch.owner.oid(), || {
        Spi::connect(|client| {
            let rows = client.select(&row, Some(2), &[options.execution_id.into()])?;
            let mut rows = rows.into_iter();
            let row = rows.next().ok_or_else(|| {
                Error::missing(format!(
                    "execution \"{}\" does not exist any more",
                    options.execution_id
                ))
            })?;
            let mut read = match &result {
                Some(query) => read_query(
                    query.as_bytes(),
                    Some(options.execution_id),
                    &QueryOptions {
                        stamp: options.stamp(),
                        spool: options.spool,
                        plan: options.plan,
                        on_out_of_range: options.on_out_of_range,
                        files: options.files,
                        progress: options.progress,
                    },
                )?,
                None => encode(&row, options)?,
            };
            read.manifest.window = row
                .get::<pgrx::JsonB>(3)?
                .and_then(|parameters| TimeWindow::of_parameters(&parameters.0));
            Ok(read)
        })
    })
}

/// The size of an execution's result as it is stored, in bytes; `None` where only reading tells. Needs a transaction.
///
/// # Errors
/// If the relation is gone or cannot be read.
pub fn stored_bytes(watch: &Watch, execution_id: &str) -> Result<Option<u64>> {
    let ResultSource::Columns { rows, .. } = &watch.result else {
        return Ok(None);
    };
    watch.check_owner()?;
    let query = format!(
        "select pg_catalog.pg_column_size({})::pg_catalog.int8 from {} where {}",
        quote_identifier(rows),
        watch.existing_name()?,
        watch.key_condition()?
    );
    sandbox::as_table_owner(watch.owner.oid(), || {
        Spi::connect(|client| {
            let size = client
                .select(&query, Some(1), &[execution_id.into()])?
                .next()
                .map_or(Ok(None), |row| row.get::<i64>(1))?;
            // A row that is gone is found to be so by reading it.
            Ok(Some(size.unwrap_or(0).unsigned_abs()))
        })
    })
}

/// Result, its columns and the parameters, each NULL where the row does not hold it.
fn row_query(watch: &Watch) -> Result<String> {
    let json = |name: Option<&String>| {
        name.map_or_else(
            || "null::pg_catalog.jsonb".to_owned(),
            |name| format!("{}::pg_catalog.jsonb", quote_identifier(name)),
        )
    };
    let (rows, columns) = match &watch.result {
        ResultSource::Columns { rows, columns } => (Some(rows), columns.as_ref()),
        ResultSource::Function(_) | ResultSource::Relation(_) => (None, None),
    };
    Ok(format!(
        "select {}, {}, {} from {} where {}",
        json(rows),
        json(columns),
        parameters(watch),
        watch.existing_name()?,
        watch.key_condition()?
    ))
}

/// The execution's parameters, where the relation has a column for them as the standard one has.
fn parameters(watch: &Watch) -> &'static str {
    match column_type(watch.relation, "parameters").as_deref() {
        Ok("jsonb") => "parameters",
        Ok("json") => "parameters::pg_catalog.jsonb",
        _ => "null::pg_catalog.jsonb",
    }
}

fn encode(row: &SpiHeapTupleData<'_>, options: &ReadOptions<'_>) -> Result<QueryResult> {
    if options.on_out_of_range != OutOfRange::Error {
        return Err(Error::invalid(
            "on_out_of_range is for values that PostgreSQL types: of inline results nothing is left out",
        ));
    }
    let declared = match row.get::<pgrx::JsonB>(2)? {
        Some(columns) => parse_result_columns(&columns.0)?,
        None => None,
    };
    let entry = row.get_datum_by_ordinal(1)?;
    let result = entry.value::<pgrx::datum::AnyElement>()?.map(|any| {
        // SAFETY: the query casts the column to jsonb, and the SPI context outlives this function.
        unsafe { Jsonb::from_datum(any.datum()) }
    });

    let mut inference = Inference::new(declared.as_deref(), options.plan);
    if let Some(result) = &result {
        result.walk(&mut inference)?;
    }
    let plan = inference.finish()?;

    let mut writer = SpoolWriter::create(
        options.spool,
        &plan.result_columns(),
        &options.stamp(),
        &options.files,
    )?;
    if let Some(result) = &result {
        let mut rows = Rows::new(&plan, &mut writer);
        result.walk(&mut rows)?;
        rows.finish()?;
    }
    Ok(QueryResult {
        manifest: writer.finish()?,
        affected: Vec::new(),
    })
}
