//! Settings: one private static, one definition and one typed getter each. A comment says why the default is what it is.
#![allow(unsafe_code)] // MarkGUCPrefixReserved has no safe wrapper.

mod files;
mod limits;
mod network;

use std::ffi::CString;
use std::path::PathBuf;
use std::time::Duration;

use bridge_core::memory::MemoryLimit;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys;

pub use files::{spool_options, target_file_size};
pub use limits::{
    max_configs_per_owner, max_daily_upload_per_owner, max_spool_per_owner, min_free_space,
};
pub use network::allow_private_endpoints;

static KEY_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static KEY_COMMAND: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static DATABASES: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static WORKER_ROLE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
/// Finds what a wake-up missed (COMMIT PREPARED, a worker that was just starting); rare enough to cost nothing.
static POLL_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(30);
/// An XS warehouse loads about eight files at once.
static MAX_CONCURRENT_UPLOADS: GucSetting<i32> = GucSetting::<i32>::new(8);
/// Out of the eight background workers that a server has by default, launcher and worker take two.
static MAX_READER_PROCESSES: GucSetting<i32> = GucSetting::<i32>::new(2);
static MAX_SHARED_UPLOADS: GucSetting<i32> = GucSetting::<i32>::new(25);
/// While a snapshot is held, VACUUM removes nothing that was deleted since, in the whole database.
static SNAPSHOT_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(600);
/// An UPDATE by key takes a few milliseconds; everybody else's uploads wait while somebody's trigger runs.
static MIRROR_TIMEOUT_MS: GucSetting<i32> = GucSetting::<i32>::new(1_000);
/// Twice what reading takes at full speed, and parts of several files on their way besides.
static MAX_MEMORY_MB: GucSetting<i32> = GucSetting::<i32>::new(256);
static SPOOL_DIRECTORY: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
/// With the delays below, five attempts span about a quarter of an hour at most.
static MAX_ATTEMPTS: GucSetting<i32> = GucSetting::<i32>::new(5);
/// Every crash of the worker restarts all sessions of the server: one may be chance, two are a pattern.
static MAX_CRASHES: GucSetting<i32> = GucSetting::<i32>::new(2);
static CRASH_RETRY_DELAY: GucSetting<i32> = GucSetting::<i32>::new(60);
static RETRY_BASE_DELAY_MS: GucSetting<i32> = GucSetting::<i32>::new(1_000);
static RETRY_MAX_DELAY_MS: GucSetting<i32> = GucSetting::<i32>::new(300_000);
static CONNECT_TIMEOUT_MS: GucSetting<i32> = GucSetting::<i32>::new(10_000);
/// Longer than Snowflake parks a request (about 45 s) before it answers that a statement is still running.
static STALL_TIMEOUT_MS: GucSetting<i32> = GucSetting::<i32>::new(90_000);
/// An hour: far above any load of one result, far below Snowflake's own two days.
static STATEMENT_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(3_600);
/// A month of history answers most questions, and a million uploads of it are about a gigabyte.
static UPLOADS_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(2_592_000);
static ALLOWED_HOSTS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static CA_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
/// The login role of PostgREST, which alone may speak for the user that a JWT names.
static CLAIMS_TRUSTED_ROLES: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c"authenticator"));
/// Supabase's role for a backend that acts for its users.
static ACT_FOR_USERS_ROLES: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c"service_role"));

/// Defines every setting and reserves the prefix, so that a misspelt name is an error. Called once from `_PG_init`.
pub fn register() {
    let reload = || GucContext::Sighup;
    // Settings of the start can be defined at the start only. A backend that loads the library later has no worker to agree
    // with.
    // SAFETY: a variable of this process.
    let is_start = unsafe { pg_sys::process_shared_preload_libraries_in_progress };
    let start = || match is_start {
        true => GucContext::Postmaster,
        false => GucContext::Sighup,
    };
    let none = GucFlags::default();
    let hidden = GucFlags::SUPERUSER_ONLY;
    let ms = GucFlags::UNIT_MS;
    let seconds = GucFlags::UNIT_S;

    let strings: [(_, _, _, _, _, _); 9] = [
        (c"snowflake_bridge.key_file", c"File with the keys that encrypt stored secrets.",
         c"Outside the data directory, owned by the server's user, mode 0600. Made on first use if it does not exist and nothing is encrypted yet.",
         &KEY_FILE, reload(), hidden),
        (c"snowflake_bridge.key_command", c"Shell command that prints the keys, in place of key_file.",
         c"For keys in a vault or a key management service: it prints what a key file holds.", &KEY_COMMAND, reload(), hidden),
        (c"snowflake_bridge.databases", c"Databases in which a worker runs.",
         c"Comma-separated names; empty means every database that has the extension.", &DATABASES, reload(), none),
        (c"snowflake_bridge.worker_role", c"Role as which the workers connect.",
         c"Empty means the bootstrap superuser.", &WORKER_ROLE, start(), none),
        (c"snowflake_bridge.spool_directory", c"Directory for files on their way to Snowflake.",
         c"Made with mode 0700. Empty means snowflake_bridge_spool in the data directory.", &SPOOL_DIRECTORY, start(), hidden),
        (c"snowflake_bridge.allowed_hosts", c"Further hosts that may be contacted, besides Snowflake's own domains and their stages.",
         c"Comma-separated host names; an entry may carry a scheme and port. Plain http is accepted for loopback hosts only.",
         &ALLOWED_HOSTS, reload(), none),
        (c"snowflake_bridge.ca_file", c"PEM file with additional certificate authorities.",
         c"For networks that inspect TLS. These are trusted besides the usual ones.", &CA_FILE, reload(), none),
        (c"snowflake_bridge.claims_trusted_roles", c"Login roles whose request.jwt.claims are believed.",
         c"Comma-separated. For every other session the owner of a configuration is the role itself.", &CLAIMS_TRUSTED_ROLES, reload(), none),
        (c"snowflake_bridge.act_for_users_roles", c"Roles that may pass user_id to act for another user.",
         c"Comma-separated; superusers always may.", &ACT_FOR_USERS_ROLES, reload(), none),
    ];
    for (name, short, long, setting, context, flags) in strings {
        GucRegistry::define_string_guc(name, short, long, setting, context, flags);
    }

    let ints: [(_, _, _, _, _, _, _); 16] = [
        (
            c"snowflake_bridge.poll_interval",
            c"Longest time between two looks at the queue.",
            &POLL_INTERVAL,
            1,
            3_600,
            reload(),
            seconds,
        ),
        (
            c"snowflake_bridge.max_concurrent_uploads",
            c"Uploads in flight at once, per database.",
            &MAX_CONCURRENT_UPLOADS,
            1,
            64,
            reload(),
            none,
        ),
        (
            c"snowflake_bridge.max_shared_uploads",
            c"Uploads of the same columns to the same table that share one COPY. 1: each has its own.",
            &MAX_SHARED_UPLOADS,
            1,
            1_000,
            reload(),
            none,
        ),
        (
            c"snowflake_bridge.max_reader_processes",
            c"Processes that read long results at once, per database. 0 has the worker itself read them, one after the other.",
            &MAX_READER_PROCESSES,
            0,
            16,
            reload(),
            none,
        ),
        (
            c"snowflake_bridge.snapshot_timeout",
            c"Limit for reading the result of one execution.",
            &SNAPSHOT_TIMEOUT,
            1,
            86_400,
            reload(),
            seconds,
        ),
        (
            c"snowflake_bridge.mirror_timeout",
            c"Limit for writing a status to an application's row, with the triggers that the application put there.",
            &MIRROR_TIMEOUT_MS,
            10,
            60_000,
            reload(),
            ms,
        ),
        (
            c"snowflake_bridge.max_memory",
            c"Memory for results that one process reads and sends, besides twice the largest single value.",
            &MAX_MEMORY_MB,
            64,
            65_536,
            reload(),
            GucFlags::UNIT_MB,
        ),
        (
            c"snowflake_bridge.max_attempts",
            c"Attempts before an upload has failed.",
            &MAX_ATTEMPTS,
            1,
            1_000,
            reload(),
            none,
        ),
        (
            c"snowflake_bridge.max_crashes",
            c"Crashes of the worker during an upload before it has failed.",
            &MAX_CRASHES,
            1,
            100,
            reload(),
            none,
        ),
        (
            c"snowflake_bridge.crash_retry_delay",
            c"Wait before an upload during which the worker crashed is tried again.",
            &CRASH_RETRY_DELAY,
            0,
            86_400,
            reload(),
            seconds,
        ),
        (
            c"snowflake_bridge.retry_base_delay",
            c"Shortest wait before another attempt.",
            &RETRY_BASE_DELAY_MS,
            10,
            3_600_000,
            reload(),
            ms,
        ),
        (
            c"snowflake_bridge.retry_max_delay",
            c"Longest wait before another attempt.",
            &RETRY_MAX_DELAY_MS,
            10,
            86_400_000,
            reload(),
            ms,
        ),
        (
            c"snowflake_bridge.connect_timeout",
            c"Limit for making one connection.",
            &CONNECT_TIMEOUT_MS,
            100,
            600_000,
            reload(),
            ms,
        ),
        (
            c"snowflake_bridge.stall_timeout",
            c"Limit for a connection on which nothing moves.",
            &STALL_TIMEOUT_MS,
            1_000,
            3_600_000,
            reload(),
            ms,
        ),
        (
            c"snowflake_bridge.uploads_retention",
            c"Age at which an upload that has ended is deleted from the history. 0 or -1 keeps all.",
            &UPLOADS_RETENTION,
            -1,
            i32::MAX,
            reload(),
            seconds,
        ),
        (
            c"snowflake_bridge.statement_timeout",
            c"Limit that Snowflake is given for one statement.",
            &STATEMENT_TIMEOUT,
            1,
            604_800,
            reload(),
            seconds,
        ),
    ];
    for (name, short, setting, min, max, context, flags) in ints {
        GucRegistry::define_int_guc(name, short, c"", setting, min, max, context, flags);
    }

    files::register();
    limits::register();
    network::register();

    // SAFETY: called once in _PG_init on the main thread with a static C string.
    #[cfg(not(feature = "pg14"))]
    unsafe {
        pg_sys::MarkGUCPrefixReserved(c"snowflake_bridge".as_ptr());
    }
    // SAFETY: as above; PostgreSQL 14 has the older name.
    #[cfg(feature = "pg14")]
    unsafe {
        pg_sys::EmitWarningsOnPlaceholders(c"snowflake_bridge".as_ptr());
    }
}

fn text(setting: &'static GucSetting<Option<CString>>) -> Option<String> {
    let text = setting.get()?.to_string_lossy().trim().to_owned();
    (!text.is_empty()).then_some(text)
}

fn list(setting: &'static GucSetting<Option<CString>>) -> Vec<String> {
    text(setting)
        .unwrap_or_default()
        .split(',')
        .map(|entry| entry.trim().to_owned())
        .filter(|entry| !entry.is_empty())
        .collect()
}

/// A count that is at least `min` by its definition.
fn count(setting: &'static GucSetting<i32>) -> u32 {
    setting.get().unsigned_abs()
}

fn millis(setting: &'static GucSetting<i32>) -> Duration {
    Duration::from_millis(u64::from(count(setting)))
}

fn secs(setting: &'static GucSetting<i32>) -> Duration {
    Duration::from_secs(u64::from(count(setting)))
}

pub fn key_file() -> Option<PathBuf> {
    text(&KEY_FILE).map(PathBuf::from)
}

pub fn key_command() -> Option<String> {
    text(&KEY_COMMAND)
}

pub fn databases() -> Vec<String> {
    list(&DATABASES)
}

pub fn worker_role() -> Option<String> {
    text(&WORKER_ROLE)
}

pub fn poll_interval() -> Duration {
    secs(&POLL_INTERVAL)
}

pub fn max_concurrent_uploads() -> usize {
    count(&MAX_CONCURRENT_UPLOADS) as usize
}

pub fn max_shared_uploads() -> usize {
    count(&MAX_SHARED_UPLOADS) as usize
}

pub fn max_reader_processes() -> usize {
    count(&MAX_READER_PROCESSES) as usize
}

pub fn snapshot_timeout() -> Duration {
    secs(&SNAPSHOT_TIMEOUT)
}

pub fn mirror_timeout() -> Duration {
    millis(&MIRROR_TIMEOUT_MS)
}

/// The configured spool directory; `None` means the default inside the data directory.
pub fn spool_directory() -> Option<PathBuf> {
    text(&SPOOL_DIRECTORY).map(PathBuf::from)
}

pub fn max_memory() -> MemoryLimit {
    MemoryLimit::new(u64::from(count(&MAX_MEMORY_MB)) << 20)
}

pub fn max_attempts() -> i32 {
    MAX_ATTEMPTS.get()
}

pub fn max_crashes() -> i32 {
    MAX_CRASHES.get()
}

pub fn crash_retry_delay() -> Duration {
    secs(&CRASH_RETRY_DELAY)
}

pub fn retry_base_delay() -> Duration {
    millis(&RETRY_BASE_DELAY_MS)
}

pub fn retry_max_delay() -> Duration {
    millis(&RETRY_MAX_DELAY_MS)
}

pub fn connect_timeout() -> Duration {
    millis(&CONNECT_TIMEOUT_MS)
}

pub fn stall_timeout() -> Duration {
    millis(&STALL_TIMEOUT_MS)
}

pub fn statement_timeout() -> Duration {
    secs(&STATEMENT_TIMEOUT)
}

/// `None`: the history is kept for ever.
pub fn uploads_retention() -> Option<Duration> {
    (UPLOADS_RETENTION.get() > 0).then(|| secs(&UPLOADS_RETENTION))
}

pub fn allowed_hosts() -> String {
    text(&ALLOWED_HOSTS).unwrap_or_default()
}

pub fn ca_file() -> Option<PathBuf> {
    text(&CA_FILE).map(PathBuf::from)
}

pub fn claims_trusted_roles() -> Vec<String> {
    list(&CLAIMS_TRUSTED_ROLES)
}

pub fn act_for_users_roles() -> Vec<String> {
    list(&ACT_FOR_USERS_ROLES)
}
