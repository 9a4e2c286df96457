//! Whether there is a worker for this database, and what keeps it from running.

use super::{Finding, finding, text, truth};
use crate::error::Result;
use crate::worker::registry;
use crate::{guc, tx};

pub(super) fn preload() -> Finding {
    let is_preloaded = registry::is_available();
    finding(
        "preload",
        is_preloaded,
        if is_preloaded {
            "the library is preloaded"
        } else {
            "the library is not preloaded: uploads are queued and never sent"
        },
        "Add snowflake_bridge to shared_preload_libraries in postgresql.conf and restart the server.",
    )
}

pub(super) fn worker() -> Result<Finding> {
    let running = truth(
        "select exists (select from pg_catalog.pg_stat_activity a
                         where a.datname = pg_catalog.current_database() and a.backend_type like 'snowflake\\_bridge%')",
    )?;
    let standby = truth("select pg_catalog.pg_is_in_recovery()")?;
    let chosen = guc::databases();
    let here = text("select pg_catalog.current_database()::text")?;
    let (ok, detail, hint) = if running {
        (true, "running".to_owned(), "")
    } else if standby {
        (true, "not running: this is a standby".to_owned(), "")
    } else if !chosen.is_empty() && !chosen.contains(&here) {
        (
            false,
            "not running: snowflake_bridge.databases leaves this database out".to_owned(),
            "Add the database to snowflake_bridge.databases, or set it to an empty string for all, and reload.",
        )
    } else if registry::is_full() {
        (
            false,
            format!(
                "not running: {} other databases have workers, which is as many as can",
                registry::MAX_DATABASES
            ),
            registry::TOO_MANY_DATABASES_HINT,
        )
    } else if registry::is_short_of_processes() {
        (
            false,
            "not running: no background worker process is free".to_owned(),
            "Raise max_worker_processes in postgresql.conf and restart the server; the worker also starts by itself once \
             a process is free.",
        )
    } else if let Some(failed) = registry::my_slot()
        .map(|slot| slot.failed_starts)
        .filter(|failed| *failed > 0)
    {
        (
            false,
            format!("not running: it has ended soon after its start {failed} times in a row"),
            "The server log tells why (snowflake_bridge.worker_role must exist, be able to log in and have its privileges). It is \
             started again with growing delays, at most five minutes; a reload starts it at once.",
        )
    } else {
        (
            false,
            "not running in this database".to_owned(),
            "It starts within half a minute of CREATE EXTENSION. If it does not, look at preload and worker_slots, and \
             into the server log.",
        )
    };
    Ok(finding("worker", ok, detail, hint))
}

/// The launcher and one worker per database need slots that parallel queries and other extensions use too.
pub(super) fn worker_slots() -> Result<Finding> {
    const USED: &str = "
        select pg_catalog.count(*) from pg_catalog.pg_stat_activity a
         where a.backend_type not in ('client backend', 'autovacuum launcher', 'autovacuum worker', 'background writer',
                                      'checkpointer', 'walwriter', 'walreceiver', 'walsender', 'startup', 'archiver',
                                      'slotsync worker', 'walsummarizer', 'io worker')";
    let slots: i64 = text("select pg_catalog.current_setting('max_worker_processes')")?
        .parse()
        .unwrap_or(0);
    let used = tx::read::<i64>(USED, &[])?.unwrap_or(0);
    let lacks_reader = registry::my_slot().is_some_and(|slot| slot.lacks_reader);
    let waiting = if lacks_reader {
        "; a long result waits for a free one, to be read"
    } else {
        ""
    };
    Ok(finding(
        "worker_slots",
        used < slots && !lacks_reader,
        format!("{used} of {slots} in use{waiting}"),
        "Raise max_worker_processes in postgresql.conf: one for the launcher, one for each database with the extension and \
         snowflake_bridge.max_reader_processes more for long results, besides what parallel queries and other extensions \
         use. Then restart the server.",
    ))
}
