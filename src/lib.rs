//! `snowflake_bridge`: the PostgreSQL side. Everything that needs no server lives in the crate `bridge_core`.
#![deny(unsafe_code)]

mod api;
mod bound;
mod cached;
mod client;
mod configs;
mod doctor;
mod error;
mod failpoint;
mod finished;
mod guards;
mod guc;
mod halves;
mod installation;
mod keys;
mod memory;
mod net;
mod options;
mod owner;
mod probe;
mod retention;
mod sandbox;
mod secrets;
mod setting;
mod source;
mod statement;
mod statement_end;
mod tables;
mod timer;
mod tx;
mod uploads;
mod utility;
mod watches;
mod worker;

use pgrx::prelude::*;

::pgrx::pg_module_magic!(name, version);

extension_sql_file!("../sql/schema.sql", name = "schema", bootstrap);
extension_sql_file!(
    "../sql/policies.sql",
    name = "policies",
    requires = [api::identity::caller]
);
extension_sql_file!(
    "../sql/views.sql",
    name = "views",
    requires = [
        api::observe::upload_progress,
        api::stats::upload_stats,
        api::status::execution_status,
        api::observe::worker_status
    ]
);
extension_sql_file!("../sql/grants.sql", name = "grants", finalize);

/// Whether the postmaster is loading the library, for a server that is not being upgraded: only then can it have workers, shared
/// memory and hooks.
#[allow(unsafe_code)]
fn is_preloading() -> bool {
    // SAFETY: variables of the process, set before any library is loaded.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress && !pg_sys::IsBinaryUpgrade }
}

/// Runs when the library is loaded: in the postmaster where it is preloaded, otherwise in a backend on first use.
#[pg_guard]
#[allow(unsafe_code, non_snake_case)] // The symbol that PostgreSQL looks for.
pub extern "C-unwind" fn _PG_init() {
    guc::register();
    secrets::watch_log();
    if is_preloading() {
        worker::register();
        utility::install_hook();
        statement_end::install_hook();
    }
}
