//! Both walks together, from JSON text to the values that a sink gets.

mod declared;
mod hostile;
mod inference;
mod out_of_range;
mod stored;

use serde_json::Value as Json;

use super::*;
use crate::batch::{BatchBuilder, RowSink, Value};
use crate::error::{Error, ErrorKind};
use crate::names::ColumnCase;
use crate::types::{ColumnType, SourceType};

/// Keeps what it gets, as `column=value` in the words of `Debug`.
#[derive(Default)]
struct Collected {
    rows: Vec<Vec<String>>,
    row: Vec<String>,
}

impl RowSink for Collected {
    fn append(&mut self, column: usize, value: Value<'_>) -> Result<()> {
        self.row.push(format!("{column}={value:?}"));
        Ok(())
    }

    fn end_row(&mut self) -> Result<()> {
        self.rows.push(std::mem::take(&mut self.row));
        Ok(())
    }
}

fn plan_with(result_columns: &str, options: PlanOptions, result: &str) -> Result<Plan> {
    let declared = parse_result_columns(result_columns)?;
    let mut inference = Inference::new(declared.as_deref(), options);
    parse_text(result, &mut inference)?;
    inference.finish()
}

fn plan(result: &str) -> Result<Plan> {
    plan_with("null", PlanOptions::default(), result)
}

/// Both walks; the values of all rows.
fn read_with(result_columns: &str, options: PlanOptions, result: &str) -> Result<Vec<Vec<String>>> {
    let plan = plan_with(result_columns, options, result)?;
    // What the plan promises, a batch of its columns takes.
    let mut batch = BatchBuilder::new(&plan.result_columns());
    let mut rows = Rows::new(&plan, &mut batch);
    parse_text(result, &mut rows)?;
    rows.finish()?;
    assert_eq!(batch.finish_batch().unwrap().num_rows() as u64, plan.rows);

    let mut collected = Collected::default();
    let mut rows = Rows::new(&plan, &mut collected);
    parse_text(result, &mut rows)?;
    rows.finish()?;
    Ok(collected.rows)
}

fn read(result: &str) -> Vec<Vec<String>> {
    read_with("null", PlanOptions::default(), result).unwrap()
}

/// Name and type of each column.
fn columns(plan: &Plan) -> Vec<(String, String)> {
    plan.columns
        .iter()
        .map(|planned| {
            (
                planned.column.name.clone(),
                planned.column.column_type.snowflake(),
            )
        })
        .collect()
}

/// The type inferred for one column of those values.
fn inferred(values: &[&str], numeric: Numeric) -> Result<Option<String>> {
    let rows: Vec<String> = values
        .iter()
        .map(|value| format!("{{\"a\": {value}}}"))
        .collect();
    let options = PlanOptions {
        numeric,
        ..PlanOptions::default()
    };
    let plan = plan_with("null", options, &format!("[{}]", rows.join(",")))?;
    Ok(plan
        .columns
        .first()
        .map(|planned| planned.column.column_type.snowflake()))
}

/// The largest integer that NUMBER(38,0) holds.
const NINES: &str = "99999999999999999999999999999999999999";
