//! What the tables of the extension tell about the work itself: watches, mirrors, the queue, credentials.

use pgrx::prelude::*;

use super::{Finding, finding};
use crate::error::Result;
use crate::tx;
use crate::watches::trigger_names;

/// A queue whose oldest upload is due for longer does not move.
const SLOW_QUEUE: &str = "10 minutes";
/// What could not be entered in the queue, and waits for longer to be entered, cannot be entered.
const SLOW_ENTRY: &str = "1 minute";

/// What was done to a watched relation that its watch does not know of; one that was dropped needs nothing. Names are shown to superusers only.
pub(super) fn watches(show_names: bool) -> Result<Finding> {
    const BROKEN: &str = "
        with watched as (
            select w.*, c.oid as found, c.relowner, c.relacl, c.oid::pg_catalog.regclass::text as name
              from snowflake_bridge.watches w join pg_catalog.pg_class c on c.oid = w.relation::pg_catalog.oid
             where w.is_active)
        select pg_catalog.count(*),
               pg_catalog.count(*) filter (where b.trouble is not null),
               pg_catalog.string_agg(pg_catalog.format('%s %s', b.name, b.trouble), '; ' order by b.id)
                   filter (where b.trouble is not null)
          from (select w.id, w.name, case
                    when w.relowner <> w.owner_oid then 'belongs to another role than it did'
                    when (select pg_catalog.count(*) from pg_catalog.pg_trigger t
                           where t.tgrelid = w.found and t.tgname = any ($1) and t.tgenabled in ('O', 'A')) <> pg_catalog.cardinality($1)
                    then 'lacks a trigger, or one is disabled'
                    when exists (select from pg_catalog.unnest(array['snowflake_enabled', 'snowflake_table_name',
                                     'snowflake_schema_name', 'snowflake_status', 'snowflake_error_message',
                                     'snowflake_uploaded_at', 'snowflake_row_count', 'snowflake_attempt_count',
                                     'snowflake_options', w.execution_id_column, w.status_column, w.user_id_column,
                                     w.result_rows_column, w.result_columns_column]) n (name)
                                  where n.name is not null
                                    and not exists (select from pg_catalog.pg_attribute a
                                                     where a.attrelid = w.found and a.attname = n.name and not a.attisdropped))
                    then 'lacks a column'
                    when exists (select from pg_catalog.aclexplode(w.relacl) a
                                  where a.privilege_type = 'TRIGGER'
                                    and (a.grantee = 0 or not pg_catalog.pg_has_role(a.grantee, w.relowner, 'usage')))
                    then 'has TRIGGER granted to others than its owner'
                end as trouble
                  from watched w) b";
    let triggers: Vec<String> = trigger_names().map(str::to_owned).into();
    let (count, broken, names) = Spi::connect(|client| {
        let row = client.select(BROKEN, Some(1), &[triggers.into()])?.first();
        Ok::<_, pgrx::spi::Error>((
            row.get::<i64>(1)?.unwrap_or(0),
            row.get::<i64>(2)?.unwrap_or(0),
            row.get::<String>(3)?,
        ))
    })?;
    Ok(finding(
        "watches",
        broken == 0,
        match names {
            Some(names) if show_names => names,
            _ if broken > 0 => format!("{broken} of {count} watched relations were changed"),
            _ => format!("{count} watched, with their columns and triggers"),
        },
        "Let the relation's owner call snowflake_bridge.watch again, which makes what is missing or says what is wrong, or unwatch. A superuser \
         sees in check() which relation it is.",
    ))
}

/// Rows of applications that do not show what became of their uploads.
pub(super) fn mirrors() -> Result<Finding> {
    let failing = count(
        "select pg_catalog.count(*) from snowflake_bridge.uploads u where u.needs_mirror and u.mirror_error is not null",
    )?;
    Ok(finding(
        "mirrors",
        failing == 0,
        match failing {
            0 => "statuses reach their rows".to_owned(),
            _ => format!("the status of {failing} uploads cannot be written to their rows"),
        },
        "The uploads themselves are not affected. uploads.mirror_error says what the table's triggers, policies or \
         constraints refuse; it is tried again every minute.",
    ))
}

/// Uploads that wait for somebody to bring other credentials.
pub(super) fn credentials() -> Result<Finding> {
    let waiting = count(
        "select pg_catalog.count(*) from snowflake_bridge.uploads u where u.state = 'needs_credentials'",
    )?;
    let refused = count(
        "select pg_catalog.count(*) from snowflake_bridge.snowflake_configurations c where not c.is_active",
    )?;
    Ok(finding(
        "credentials",
        waiting == 0 && refused == 0,
        match (refused, waiting) {
            (0, 0) => "Snowflake has refused none".to_owned(),
            _ => format!(
                "Snowflake has refused those of {refused} configurations; {waiting} uploads wait"
            ),
        },
        "Their owners correct them with snowflake_bridge.update_config(); get_config() shows last_test_error. The uploads \
         then go on by themselves.",
    ))
}

/// Whether what is due is begun.
pub(super) fn queue() -> Result<Finding> {
    let (waiting, slow) = tx::read_two::<i64, bool>(
        "select pg_catalog.count(*),
                coalesce(pg_catalog.min(u.next_attempt_at) < pg_catalog.clock_timestamp() - $1::interval, false)
           from snowflake_bridge.uploads u where u.state in ('queued', 'retry')",
        &[SLOW_QUEUE.into()],
    )?;
    let (waiting, slow) = (waiting.unwrap_or(0), slow == Some(true));
    Ok(finding(
        "queue",
        !slow,
        if slow {
            format!(
                "{waiting} uploads wait, one of them for more than {SLOW_QUEUE} since it was due"
            )
        } else {
            format!("{waiting} uploads wait")
        },
        "If the worker runs, Snowflake is slower than the reports come: raise snowflake_bridge.max_concurrent_uploads, or \
         take a larger warehouse. snowflake_bridge.upload_progress shows what is under way.",
    ))
}

/// Whether what is finished gets into the queue: the worker enters at once what triggers could not, if it can.
pub(super) fn missed() -> Result<Finding> {
    let missed = tx::read::<i64>(
        "select pg_catalog.count(*) from snowflake_bridge.missed m where m.missed_at < pg_catalog.clock_timestamp() - $1::interval",
        &[SLOW_ENTRY.into()],
    )?
    .unwrap_or(0);
    Ok(finding(
        "missed",
        missed == 0,
        match missed {
            0 => "no execution waits to be entered in the queue".to_owned(),
            _ => format!("{missed} executions that have finished cannot be entered in the queue"),
        },
        "If the worker runs, it says why in the server log, tries again every minute, and at once after a reload. Once the cause is \
         gone, nothing else needs to be done.",
    ))
}

fn count(query: &str) -> Result<i64> {
    Ok(tx::read(query, &[])?.unwrap_or(0))
}
