//! How each execution's upload stands, for applications whose tables do not take it, or would rather ask.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::TableIterator;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::error::Result;
use crate::owner::{Owner, current_role, is_superuser};
use crate::sandbox;
use crate::uploads::{MESSAGE, STATUS};

/// Of each execution of a watched relation the latest upload that is the caller's, by its owner or by its watch's.
#[pg_extern(volatile, parallel_unsafe)]
fn execution_status() -> Result<
    TableIterator<
        'static,
        (
            name!(relation, Option<String>),
            name!(execution_id, String),
            name!(upload, i64),
            name!(status, String),
            name!(error_message, Option<String>),
            name!(uploaded_at, Option<TimestampWithTimeZone>),
            name!(row_count, Option<i64>),
            name!(attempt_count, i32),
            name!(mirror_error, Option<String>),
        ),
    >,
    ErrorReport,
> {
    Ok(TableIterator::new(statuses()?))
}

type Status = (
    Option<String>,
    String,
    i64,
    String,
    Option<String>,
    Option<TimestampWithTimeZone>,
    Option<i64>,
    i32,
    Option<String>,
);

fn statuses() -> Result<Vec<Status>> {
    let caller = Owner::current()?;
    let is_superuser = is_superuser(current_role());
    let query = format!(
        "select distinct on (u.watch_id, u.execution_id) format('%I.%I', n.nspname, c.relname), u.execution_id, u.id, \
             {STATUS}, nullif({MESSAGE}, ''), case when u.state = 'completed' then u.completed_at end, \
             case when u.state = 'completed' then u.row_count end, u.attempt_count, u.mirror_error \
         from snowflake_bridge.uploads u join snowflake_bridge.watches w on w.id = u.watch_id \
         left join pg_class c on c.oid = w.relation left join pg_namespace n on n.oid = c.relnamespace \
         where $1 or (u.owner_kind = $2 and u.user_id = $3 and u.owner_oid = $4) \
             or ($2 = 'role' and w.user_id = $3 and w.owner_oid = $4) \
         order by u.watch_id, u.execution_id, u.id desc"
    );
    let arguments = [
        is_superuser.into(),
        caller.kind().into(),
        caller.user_id().into(),
        caller.oid_argument(),
    ];
    sandbox::as_extension_owner(|| {
        Spi::connect(|client| {
            let mut statuses = Vec::new();
            for row in client.select(&query, None, &arguments)? {
                statuses.push((
                    // None where the relation was dropped.
                    row.get(1)?,
                    row.get(2)?.unwrap_or_default(),
                    row.get(3)?.unwrap_or_default(),
                    row.get(4)?.unwrap_or_default(),
                    row.get(5)?,
                    row.get(6)?,
                    row.get(7)?,
                    row.get(8)?.unwrap_or_default(),
                    row.get(9)?,
                ));
            }
            Ok(statuses)
        })
    })
}
