//! The background worker: one launcher for the server, one worker for each database that has the extension, and
//! readers for results that take long to read.

mod activity;
mod begin;
mod cleaning;
mod clock;
pub mod database_ddl;
pub mod dropping;
mod entry;
mod events;
mod in_flight;
mod janitor;
mod launcher;
mod ledger;
mod live;
mod memory;
mod mirror;
mod missed;
mod plan;
mod queue;
mod reader;
mod readers;
mod reading;
mod recovery;
pub mod registry;
mod report;
mod runner;
mod service;
mod sharing;
mod signals;
mod slots;
#[cfg(feature = "failpoints")]
mod steps;
mod stubborn;
mod together;
mod turns;
mod unrecorded;
mod vacancy;
mod verdict;
mod witness;

use std::time::Duration;

use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime};

/// Long enough not to turn a persistent fault into a load, short enough not to be noticed after a passing one.
const LAUNCHER_RESTART: Duration = Duration::from_secs(10);

/// Registers the launcher and reserves shared memory. Only in the postmaster, while it loads its preloaded libraries.
pub fn register() {
    registry::register();
    vacancy::register();
    BackgroundWorkerBuilder::new("snowflake_bridge launcher")
        .set_type("snowflake_bridge launcher")
        .set_library("snowflake_bridge")
        .set_function("snowflake_bridge_launcher_main")
        .enable_spi_access()
        // Never on a standby: what it would upload is the primary's to upload.
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(LAUNCHER_RESTART))
        .load();
}
