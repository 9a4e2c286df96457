//! Uploads in numbers.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::TableIterator;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::error::Result;
use crate::sandbox;

/// Of what row level security lets the caller see. `target` is where an upload's rows went; null stands for uploads that
/// never completed.
#[pg_extern(volatile, parallel_unsafe)]
fn upload_stats() -> Result<
    TableIterator<
        'static,
        (
            name!(user_id, String),
            name!(target, Option<String>),
            name!(waiting, i64),
            name!(in_flight, i64),
            name!(needs_credentials, i64),
            name!(completed, i64),
            name!(failed, i64),
            name!(canceled, i64),
            name!(row_count, i64),
            name!(byte_count, i64),
            name!(out_of_range_count, i64),
            name!(average_seconds, Option<f64>),
            name!(first_created_at, Option<TimestampWithTimeZone>),
            name!(last_completed_at, Option<TimestampWithTimeZone>),
        ),
    >,
    ErrorReport,
> {
    Ok(TableIterator::new(sandbox::as_caller(stats)?))
}

type Stats = (
    String,
    Option<String>,
    i64,
    i64,
    i64,
    i64,
    i64,
    i64,
    i64,
    i64,
    i64,
    Option<f64>,
    Option<TimestampWithTimeZone>,
    Option<TimestampWithTimeZone>,
);

fn stats() -> Result<Vec<Stats>> {
    Spi::connect(|client| {
        let rows = client.select(
            "select u.user_id, u.target, \
                 pg_catalog.count(*) filter (where u.state in ('queued', 'retry')), \
                 pg_catalog.count(*) filter (where u.state in ('claimed', 'staged', 'copying')), \
                 pg_catalog.count(*) filter (where u.state = 'needs_credentials'), \
                 pg_catalog.count(*) filter (where u.state = 'completed'), \
                 pg_catalog.count(*) filter (where u.state = 'failed'), \
                 pg_catalog.count(*) filter (where u.state = 'canceled'), \
                 coalesce(pg_catalog.sum(u.row_count) filter (where u.state = 'completed'), 0)::pg_catalog.int8, \
                 coalesce(pg_catalog.sum(u.byte_count) filter (where u.state = 'completed'), 0)::pg_catalog.int8, \
                 pg_catalog.sum(u.out_of_range_count)::pg_catalog.int8, \
                 pg_catalog.avg(extract(epoch from u.completed_at - u.claimed_at)) \
                     filter (where u.state = 'completed')::pg_catalog.float8, \
                 pg_catalog.min(u.created_at), \
                 pg_catalog.max(u.completed_at) filter (where u.state = 'completed') \
             from snowflake_bridge.uploads u group by u.user_id, u.target order by u.user_id, u.target",
            None,
            &[],
        )?;
        let mut stats = Vec::new();
        for row in rows {
            let count = |ordinal| -> Result<i64> { Ok(row.get(ordinal)?.unwrap_or(0)) };
            stats.push((
                row.get(1)?.unwrap_or_default(),
                row.get(2)?,
                count(3)?,
                count(4)?,
                count(5)?,
                count(6)?,
                count(7)?,
                count(8)?,
                count(9)?,
                count(10)?,
                count(11)?,
                row.get(12)?,
                row.get(13)?,
                row.get(14)?,
            ));
        }
        Ok(stats)
    })
}
