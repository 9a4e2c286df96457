//! Uploads as their users handle them: create an execution, queue, wait, retry, cancel.

use std::time::{Duration, Instant};

use bridge_core::config::Account;
use bridge_core::names;
use pgrx::datum::Interval;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{default, pg_sys};

use super::row;
use crate::error::{Error, Result};
use crate::owner::{Owner, current_role, is_superuser};
use crate::source::spooled;
use crate::uploads::{self, NewUpload};
use crate::watches::Watch;
use crate::worker::registry::{self, Wake};
use crate::{client, net, sandbox, tx};

/// Between two looks at an upload's state.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Between two NOTICEs of a progress that moves.
const NOTICE_INTERVAL: Duration = Duration::from_secs(1);

#[pg_extern(volatile, parallel_unsafe)]
fn upload(
    execution_id: &str,
    relation: default!(Option<&str>, "null"),
) -> Result<i64, ErrorReport> {
    Ok(queue(execution_id, relation)?)
}

#[pg_extern(volatile, parallel_unsafe)]
fn wait_for_upload(
    id: i64,
    timeout: default!(Option<Interval>, "null"),
) -> Result<String, ErrorReport> {
    Ok(client::watched(|| wait(id, timeout))?)
}

#[pg_extern(volatile, parallel_unsafe)]
fn retry_upload(id: i64) -> Result<bool, ErrorReport> {
    Ok(retry(id)?)
}

#[pg_extern(volatile, parallel_unsafe)]
fn cancel_upload(id: i64) -> Result<bool, ErrorReport> {
    Ok(cancel(id)?)
}

/// At once where nobody is at it and nothing of it can be in Snowflake; otherwise by the worker, which alone can tell what
/// became of a load that was begun. Of an upload whose rows their caller has read, the files go with it; it may have failed,
/// since they are kept until then.
fn cancel(id: i64) -> Result<bool> {
    tx::require_primary("cancel_upload")?;
    sandbox::require_unrestricted()?;
    require_visible(id)?;
    let (is_canceled, files) = sandbox::as_extension_owner(|| {
        // An attempt may end between the two.
        for _ in 0..2 {
            if uploads::cancel_waiting(id)? {
                return Ok((true, uploads::drop_files(id)?));
            }
            if uploads::request_cancel(id)? {
                return Ok((true, None));
            }
        }
        Ok((false, None))
    })?;
    if let Some(files) = files {
        spooled::remove_at_commit(files.upload_id, files.owner.fingerprint(), files.bytes)?;
    }
    registry::wake_at_commit(Wake::Worker);
    Ok(is_canceled)
}

fn queue(execution_id: &str, relation: Option<&str>) -> Result<i64> {
    tx::require_primary("upload")?;
    sandbox::require_unrestricted()?;
    let watch = resolve_watch(relation)?;
    let Some(row) = row::read(&watch, execution_id)? else {
        let relation = watch.qualified_name()?.unwrap_or_default();
        return Err(Error::missing(format!(
            "no execution \"{execution_id}\" in {relation}"
        )));
    };
    let owner = row::owner_of(&watch, row.user_id.as_deref());
    let id = sandbox::as_extension_owner(|| {
        uploads::enqueue(&NewUpload {
            watch_id: watch.id,
            execution_id: row.execution_id,
            owner,
            row_user_id: row.user_id,
            options: row.options,
            is_shown: false,
        })
    })?;
    registry::wake_at_commit(Wake::Worker);
    Ok(id)
}

/// Goes on with the options that the row has now: changing them is what most hints ask for. Only the latest upload of
/// an execution: an older one would load beside it what it has replaced.
fn retry(id: i64) -> Result<bool> {
    tx::require_primary("retry_upload")?;
    sandbox::require_unrestricted()?;
    require_visible(id)?;
    let (watch, execution_id) = sandbox::as_extension_owner(|| {
        let (watch, execution_id) = Spi::get_two_with_args::<i64, String>(
            "select u.watch_id, u.execution_id from snowflake_bridge.uploads u where u.id = $1",
            &[id.into()],
        )?;
        Ok((watch.map(Watch::load).transpose()?.flatten(), execution_id))
    })?;
    let row = match (&watch, &execution_id) {
        (Some(watch), Some(execution_id)) if watch.is_active => row::read(watch, execution_id)?,
        _ => None,
    };
    let options = row.map(|row| row.options);
    let changed = sandbox::as_extension_owner(|| {
        uploads::forget_cancel(id)?;
        Spi::connect_mut(|client| {
            let changed = client.update(
                "update snowflake_bridge.uploads u set state = 'retry', attempt_count = 0, crash_count = 0, throttled_since = null, \
                     next_attempt_at = now(), completed_at = null, needs_mirror = true, mirror_after = now(), \
                     options = coalesce($2::jsonb, u.options), \
                     staged_claim = case when coalesce($2::jsonb, u.options) = u.options then u.staged_claim end \
                 where u.id = $1 and u.state in ('retry', 'failed', 'canceled', 'needs_credentials') \
                     and (u.watch_id is not null or u.manifest is not null) \
                     and not exists (select from snowflake_bridge.uploads n \
                         where n.watch_id = u.watch_id and n.execution_id = u.execution_id and n.id > u.id)",
                None,
                &[id.into(), options.into()],
            )?;
            Ok(!changed.is_empty())
        })
    })?;
    registry::wake_at_commit(Wake::Worker);
    Ok(changed)
}

/// The named watch, as whoever names a relation in a statement means it; or the only one that the caller can mean.
pub fn resolve_watch(relation: Option<&str>) -> Result<Watch> {
    let Some(relation) = relation else {
        let caller = current_role();
        return sandbox::as_extension_owner(|| Watch::only(caller));
    };
    let oid = super::watch::existing(relation)?;
    sandbox::as_extension_owner(|| Watch::of_relation(oid))?.ok_or_else(|| {
        Error::missing(format!("relation \"{relation}\" is not watched"))
            .hint("Call snowflake_bridge.watch first.")
    })
}

/// The same error for what is not there and for what is somebody else's.
fn require_visible(id: i64) -> Result<()> {
    let caller = Owner::caller()?;
    let watched_for = owns(&caller, id)?;
    if watched_for {
        Ok(())
    } else {
        Err(Error::missing(format!("upload {id} does not exist")))
    }
}

/// Whether the upload is the caller's: by its owner, by its watch's owner, or because the caller is a superuser.
fn owns(caller: &Owner, id: i64) -> Result<bool> {
    let is_superuser = is_superuser(current_role());
    sandbox::as_extension_owner(|| {
        Ok(Spi::get_one_with_args::<bool>(
            "select exists (select from snowflake_bridge.uploads u \
                 left join snowflake_bridge.watches w on w.id = u.watch_id \
                 where u.id = $1 and ($2 \
                     or (u.owner_kind = $3 and u.user_id = $4 and u.owner_oid = $5) \
                     or ($3 = 'role' and w.user_id = $4 and w.owner_oid = $5)))",
            &[
                id.into(),
                is_superuser.into(),
                caller.kind().into(),
                caller.user_id().into(),
                caller.oid_argument(),
            ],
        )? == Some(true))
    })
}

struct Seen {
    state: String,
    message: Option<String>,
    rows: Option<i64>,
    is_own_transaction: bool,
}

fn wait(id: i64, timeout: Option<Interval>) -> Result<String> {
    sandbox::require_unrestricted()?;
    if !tx::sees_later_commits() {
        return Err(Error::user(
            PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION,
            "cannot wait for an upload in a transaction that keeps one snapshot",
        )
        .hint("Wait in READ COMMITTED, outside of the transaction."));
    }
    require_visible(id)?;
    let deadline = timeout.map(|timeout| {
        Instant::now() + Duration::from_secs_f64((timeout.as_micros() as f64 / 1e6).max(0.0))
    });
    let mut noticed = (Instant::now(), String::new());
    loop {
        let Some(seen) = look(id)? else {
            return Err(Error::missing(format!("upload {id} does not exist")));
        };
        if seen.is_own_transaction {
            return Err(Error::user(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("upload {id} was queued by this transaction, which has not committed"),
            )
            .hint("Commit first: the worker cannot see the upload before."));
        }
        if matches!(
            seen.state.as_str(),
            "completed" | "failed" | "canceled" | "needs_credentials"
        ) {
            match (&seen.message, seen.rows) {
                (Some(message), _) => notice!("upload {id} {}: {message}", seen.state),
                (None, Some(rows)) => notice!("upload {id} {}: {rows} rows", seen.state),
                (None, None) => {}
            }
            return Ok(seen.state);
        }
        let progress = super::observe::describe_progress(id, &seen.state);
        if progress != noticed.1 && (noticed.1.is_empty() || noticed.0.elapsed() >= NOTICE_INTERVAL)
        {
            notice!("upload {id} {progress}");
            noticed = (Instant::now(), progress);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(seen.state);
        }
        net::sleep(LOOK_INTERVAL);
    }
}

/// The upload's state as it is now, whatever snapshot the caller's transaction has.
fn look(id: i64) -> Result<Option<Seen>> {
    tx::with_latest_snapshot(|| {
        sandbox::as_extension_owner(|| {
            Spi::connect(|client| {
                let rows = client.select(
                    "select u.state, u.error_message, u.row_count, u.xmin::text::bigint \
                 from snowflake_bridge.uploads u where u.id = $1",
                    Some(1),
                    &[id.into()],
                )?;
                let Some(row) = rows.into_iter().next() else {
                    return Ok(None);
                };
                Ok(Some(Seen {
                    state: row.get(1)?.unwrap_or_default(),
                    message: row.get(2)?,
                    rows: row.get(3)?,
                    is_own_transaction: row.get::<i64>(4)?.is_some_and(tx::is_own),
                }))
            })
        })
    })
}

/// Called by the worker: names of tables are compared as they will be in Snowflake, whatever the database's locale.
#[pg_extern(immutable, strict, parallel_safe)]
fn upper_name(name: &str) -> String {
    names::upper_name(name)
}

/// Called by the worker: whoever writes the same account in another way is at the same tables.
#[pg_extern(immutable, strict, parallel_safe)]
fn account_identity(identifier: &str) -> String {
    Account::identity(identifier)
}

/// What holds of every row of `uploads`, in one call: each CHECK in SQL is read anew for every statement, at the cost of an
/// index or two.
#[pg_extern(immutable, strict, parallel_safe)]
fn is_upload(state: &str, owner_kind: &str, owner_oid: pg_sys::Oid) -> bool {
    let has_role = owner_oid != pg_sys::InvalidOid;
    uploads::STATES.contains(&state)
        && match owner_kind {
            "role" => has_role,
            "jwt" => !has_role,
            _ => false,
        }
}

extension_sql!(
    "alter table snowflake_bridge.uploads add constraint is_upload check (snowflake_bridge.is_upload(state, owner_kind, owner_oid));",
    name = "is_upload",
    requires = [is_upload]
);
