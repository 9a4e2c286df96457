//! Reading one execution: its row, as the watch's owner in the sandbox, into spool files.
#![allow(unsafe_code)]

use std::path::Path;

use bridge_core::json::{Inference, PlanOptions, Rows, parse_result_columns};
use bridge_core::spool::{Manifest, SpoolOptions, SpoolWriter, Stamp, TimeWindow};
use chrono::Utc;
use pgrx::prelude::*;
use pgrx::spi::{SpiHeapTupleData, quote_identifier};
use uuid::Uuid;

use super::jsonb::Jsonb;
use crate::error::{Error, Result};
use crate::sandbox;
use crate::watches::{Watch, column_type};

/// What the reader needs to know of an upload.
pub struct ReadOptions<'a> {
    pub execution_id: &'a str,
    pub user_id: Option<&'a str>,
    pub upload_id: Uuid,
    pub spool: &'a Path,
    pub plan: PlanOptions,
    pub files: SpoolOptions,
}

/// Reads the result of an execution into the spool. Needs a transaction, which may be read-only.
///
/// # Errors
/// If the row is gone, or its result is malformed or cannot be held by Snowflake.
pub fn read(watch: &Watch, options: &ReadOptions<'_>) -> Result<Manifest> {
    watch.check_owner()?;
    let query = query(watch)?;
    sandbox::as_table_owner(watch.owner.oid(), || {
        Spi::connect(|client| {
            let rows = client.select(&query, Some(2), &[options.execution_id.into()])?;
            let mut rows = rows.into_iter();
            let row = rows.next().ok_or_else(|| {
                Error::missing(format!(
                    "execution \"{}\" does not exist any more",
                    options.execution_id
                ))
            })?;
            encode(&row, options)
        })
    })
}

fn query(watch: &Watch) -> Result<String> {
    let relation = watch
        .qualified_name()?
        .ok_or_else(|| Error::missing("the watched relation does not exist any more"))?;
    let columns = &watch.columns;
    Ok(format!(
        "select {}::pg_catalog.jsonb, {}, {} from {relation} where {}",
        quote_identifier(&columns.result_rows),
        columns.result_columns.as_ref().map_or_else(
            || "null::pg_catalog.jsonb".to_owned(),
            |name| format!("{}::pg_catalog.jsonb", quote_identifier(name))
        ),
        parameters(watch),
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

fn encode(row: &SpiHeapTupleData<'_>, options: &ReadOptions<'_>) -> Result<Manifest> {
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

    let stamp = Stamp {
        execution_id: options.execution_id.to_owned(),
        user_id: options.user_id.map(str::to_owned),
        upload_id: options.upload_id,
        uploaded_at: Utc::now(),
    };
    let mut writer = SpoolWriter::create(
        options.spool,
        &plan.result_columns(),
        &stamp,
        &options.files,
    )?;
    if let Some(result) = &result {
        let mut rows = Rows::new(&plan, &mut writer);
        result.walk(&mut rows)?;
        rows.finish()?;
    }
    let mut manifest = writer.finish()?;
    manifest.window = row
        .get::<pgrx::JsonB>(3)?
        .and_then(|parameters| TimeWindow::of_parameters(&parameters.0));
    Ok(manifest)
}
