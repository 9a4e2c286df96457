//! How long uploads are remembered.

use std::time::Duration;

use pgrx::prelude::*;

use crate::error::Result;

/// What a step through the history did.
pub struct Forgotten {
    /// The last upload that was looked at; `None` at the end.
    pub last: Option<i64>,
    pub count: i64,
}

/// Looks at up to `limit` uploads after the one with the id `after`, and deletes those that ended longer ago than
/// `retention` and that nobody needs. Needed are the files of a query that has failed, and what another upload of the
/// same execution has to replace: of each table of an account, the uploads since the last that replaced all before it.
///
/// # Errors
/// If the statement fails.
pub fn forget_old(after: i64, limit: i64, retention: Duration) -> Result<Forgotten> {
    let (last, count) = Spi::get_two_with_args::<i64, i64>(
        "with looked as materialized ( \
             select u.id from snowflake_bridge.uploads u where u.id > $1 order by u.id limit $2), \
         old as materialized ( \
             select u.id from snowflake_bridge.uploads u join looked using (id) \
             where u.state in ('completed', 'failed', 'canceled') and not u.needs_mirror \
               and u.completed_at < clock_timestamp() - make_interval(secs => $3) \
               and case when u.watch_id is null then u.state <> 'failed' or u.manifest is null \
                   else not u.may_be_loaded or exists ( \
                       select from snowflake_bridge.uploads n \
                       where n.watch_id = u.watch_id and n.execution_id = u.execution_id and n.id > u.id \
                         and n.state = 'completed' and n.may_be_loaded and n.target = u.target \
                         and split_part(n.staged_for, '/', 1) = split_part(u.staged_for, '/', 1) \
                         and coalesce(n.options ->> 'strategy', 'append') = 'append') end \
             for update of u skip locked), \
         gone as (delete from snowflake_bridge.uploads u using old where u.id = old.id returning 1) \
         select (select max(id) from looked), (select count(*) from gone)",
        &[after.into(), limit.into(), retention.as_secs_f64().into()],
    )?;
    Ok(Forgotten {
        last,
        count: count.unwrap_or(0),
    })
}
