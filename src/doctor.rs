//! What an installation needs to work, looked at one by one.

mod uploads;
mod worker;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::installation::{self, Installation, LIBRARY, Obstacle};
use crate::source::spooled;
use crate::worker::registry;
use crate::{guc, keys, net, tx};

/// A difference from Snowflake's clock that leaves a key pair's token half of its minute.
const MAX_CLOCK_SECONDS: i64 = 30;

/// One thing that was looked at.
pub struct Finding {
    pub item: &'static str,
    pub ok: bool,
    pub detail: String,
    pub hint: Option<String>,
}

/// Every finding, good or bad. Expects the rights of the extension's owner; paths and relations are shown to superusers
/// only.
///
/// # Errors
/// If the catalog cannot be read.
pub fn examine(show_paths: bool) -> Result<Vec<Finding>> {
    Ok(vec![
        version()?,
        installation()?,
        worker::preload(),
        worker::worker()?,
        worker::worker_slots()?,
        key_file(show_paths),
        spool_directory(show_paths)?,
        spool_space(),
        clock()?,
        network(show_paths),
        statement_logging()?,
        uploads::watches(show_paths)?,
        uploads::mirrors()?,
        uploads::credentials()?,
        uploads::queue()?,
        uploads::missed()?,
    ])
}

fn finding(
    item: &'static str,
    ok: bool,
    detail: impl Into<String>,
    hint: impl Into<String>,
) -> Finding {
    Finding {
        item,
        ok,
        detail: detail.into(),
        hint: (!ok).then(|| hint.into()),
    }
}

/// A library that is newer than the SQL objects is a half-done upgrade.
fn version() -> Result<Finding> {
    let extension = Installation::find()?.map_or_else(String::new, |found| found.version);
    let is_same = extension == LIBRARY;
    let mismatch = Obstacle::Version(extension);
    Ok(finding(
        "version",
        is_same,
        mismatch.message(),
        mismatch.hint(),
    ))
}

/// A copy sends nothing of what it has brought along.
fn installation() -> Result<Finding> {
    let is_copied = installation::is_copied()?;
    Ok(finding(
        "installation",
        !is_copied,
        if is_copied {
            Obstacle::Copied.message()
        } else {
            "made for this database".to_owned()
        },
        Obstacle::Copied.hint(),
    ))
}

fn key_file(show_paths: bool) -> Finding {
    match keys::find() {
        Ok(Some(_)) => finding("key_file", true, "readable, and by nobody else", ""),
        Ok(None) => finding(
            "key_file",
            false,
            "not made yet",
            "Run snowflake_bridge.generate_key_file() as a superuser, or leave it to the first \
             snowflake_bridge.create_config(). Either says what is wrong with the path, if anything is.",
        ),
        Err(error) => {
            let (_, hint) = error.sqlstate_and_hint();
            let detail = match guc::key_file() {
                Some(_) if !show_paths => {
                    "the file cannot be used; to a superuser check() says why".to_owned()
                }
                _ => error.to_string(),
            };
            finding("key_file", false, detail, hint.unwrap_or_default())
        }
    }
}

/// The worker makes the directory when it starts; before that its parent must let it.
fn spool_directory(show_paths: bool) -> Result<Finding> {
    let data_directory =
        PathBuf::from(text("select pg_catalog.current_setting('data_directory')")?);
    let path = data_directory
        .join(guc::spool_directory().unwrap_or_else(|| PathBuf::from("snowflake_bridge_spool")));
    let trouble = match fs::metadata(&path) {
        Ok(found) if !found.is_dir() => Some("is not a directory".to_owned()),
        Ok(found) if found.permissions().mode() & 0o077 != 0 => {
            Some("is open to other users of this machine".to_owned())
        }
        Ok(_) if spooled::is_others()? => Some(
            "is used by a copy of this server, or by the one that this is a copy of, too"
                .to_owned(),
        ),
        Ok(_) => write_trial(&path)
            .err()
            .map(|error| format!("cannot be written to: {error}")),
        Err(error) if error.kind() == ErrorKind::NotFound => path
            .parent()
            .and_then(|parent| write_trial(parent).err())
            .map(|error| format!("cannot be made: {error}")),
        Err(error) => Some(format!("cannot be looked at: {error}")),
    };
    let name = if show_paths {
        path.display().to_string()
    } else {
        "the directory".to_owned()
    };
    Ok(match trouble {
        None => finding(
            "spool_directory",
            true,
            "private, and can be written to",
            "",
        ),
        Some(trouble) => finding(
            "spool_directory",
            false,
            format!("{name} {trouble}"),
            "It must belong to the server's user with mode 0700, and to no running copy of the server; see snowflake_bridge.spool_directory.",
        ),
    })
}

/// What all uploads at once may take, one file each, above what is left free: a result that takes more is refused and tried again.
fn spool_space() -> Finding {
    let wanted = guc::target_file_size()
        .saturating_mul(u64::try_from(guc::max_concurrent_uploads()).unwrap_or(u64::MAX))
        .saturating_add(guc::min_free_space());
    let megabytes = |bytes: u64| bytes >> 20;
    match spooled::free_bytes() {
        Ok(free) => finding(
            "spool_space",
            free >= wanted,
            format!("{} MB free", megabytes(free)),
            format!(
                "At least {} MB should be: snowflake_bridge.min_free_space, and one file for each upload at once. Make room, set snowflake_bridge.spool_directory to \
                 another disk, or cancel failed uploads of queries, whose files are kept.",
                megabytes(wanted)
            ),
        ),
        Err(error) => finding(
            "spool_space",
            false,
            format!("cannot be told: {error}"),
            "See spool_directory.",
        ),
    }
}

/// Nothing but writing tells whether one may: file systems can be full, read-only, or have rules of their own.
fn write_trial(directory: &Path) -> std::io::Result<()> {
    let file = directory.join(format!("snowflake_bridge_check.{}", std::process::id()));
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&file)?;
    fs::remove_file(&file)
}

/// A login with a key pair proves itself with a token that names the time, and is valid for a minute. Whether a clock is
/// right only another one can tell: Snowflake's, once it has answered the worker. That it went back, this server can.
fn clock() -> Result<Finding> {
    const LATEST: &str = "
        select pg_catalog.to_char(pg_catalog.clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS')
               || case when pg_catalog.clock_timestamp() >= greatest(
                      (select c.checkpoint_time from pg_catalog.pg_control_checkpoint() c),
                      (select pg_catalog.max(u.created_at) from snowflake_bridge.uploads u)) then '' else '!' end";
    let told = text(LATEST)?;
    let time = told.trim_end_matches('!');
    let went_back = told != time;
    let ahead = registry::my_worker().and_then(|worker| worker.clock_ahead);
    let is_off = ahead.is_some_and(|ahead| ahead.abs() > MAX_CLOCK_SECONDS);
    let trouble = match ahead {
        _ if went_back => ", which is before this server's own past".to_owned(),
        Some(ahead) if is_off => {
            format!(", {ahead} s ahead of Snowflake's when that last answered")
        }
        _ => String::new(),
    };
    Ok(finding(
        "clock",
        !went_back && !is_off,
        format!("{time} UTC{trouble}"),
        "Synchronise the clock of this machine: authentication with a key pair needs it to be right within a minute.",
    ))
}

/// Settings that the network thread reads, before it has to.
fn network(show_paths: bool) -> Finding {
    const HINT: &str = "Correct snowflake_bridge.allowed_hosts or snowflake_bridge.ca_file in postgresql.conf and reload.";
    let limits = match net::limits() {
        Ok(limits) => limits,
        Err(error) => return finding("network", false, error.to_string(), HINT),
    };
    match limits
        .ca_file
        .as_deref()
        .map(|path| (path, fs::File::open(path)))
    {
        Some((path, Err(error))) => {
            let name = if show_paths {
                path.display().to_string()
            } else {
                "snowflake_bridge.ca_file".to_owned()
            };
            finding(
                "network",
                false,
                format!("{name} cannot be read: {error}"),
                HINT,
            )
        }
        _ => finding(
            "network",
            true,
            format!(
                "connections time out after {:?}, stalls after {:?}",
                limits.connect_timeout, limits.stall_timeout
            ),
            "",
        ),
    }
}

/// Settings that write the text of statements, or the values bound to them, into the server log. A call of create_config() and
/// its like is kept out of it, but not what else is given a secret, to pass on.
fn statement_logging() -> Result<Finding> {
    const RECORDING: &str = "
        select pg_catalog.string_agg(s.name || ' = ' || s.setting, ', ' order by s.name)
          from pg_catalog.pg_settings s
         where s.name = 'log_statement' and s.setting = 'all'
            or s.name in ('log_min_duration_statement', 'auto_explain.log_min_duration') and s.setting <> '-1'
            or s.name = 'log_min_duration_sample' and s.setting <> '-1'
               and pg_catalog.current_setting('log_statement_sample_rate')::float8 > 0
            or s.name = 'log_transaction_sample_rate' and s.setting <> '0'
            or s.name in ('debug_print_parse', 'debug_print_rewritten', 'debug_print_plan') and s.setting = 'on'
            or s.name = 'log_min_messages' and s.setting in ('debug2', 'debug3', 'debug4', 'debug5')
            or s.name = 'pgaudit.log' and s.setting ~* '(^|,) *(all|read|function)'";
    let recording: Option<String> = tx::read(RECORDING, &[])?;
    Ok(match recording {
        None => finding("statement_logging", true, "statements are not logged", ""),
        Some(settings) => finding(
            "statement_logging",
            false,
            format!(
                "the server log records statements, and secrets in all but calls of the functions that take them: {settings}"
            ),
            "Call create_config(), update_config() and test_connection(jsonb) by name, with bound parameters, and not through functions \
             or prepared statements that are given the secrets; or turn the setting off for the role that does.",
        ),
    })
}

/// The one value of a query that always has one.
fn text(query: &str) -> Result<String> {
    tx::read(query, &[])?
        .ok_or_else(|| Error::missing("the catalog does not tell what check() asks"))
}

fn truth(query: &str) -> Result<bool> {
    Ok(tx::read(query, &[])?.unwrap_or(false))
}
