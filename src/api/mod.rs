//! The SQL functions: thin shells, grouped as the user sees them. What they do lies in the modules beside `api`.
// An SQL function fails with pgrx's own report, once per call; and the macro reads the columns of a result from its type.
#![allow(clippy::result_large_err, clippy::type_complexity)]

mod access;
mod backfill;
mod columns;
mod config;
mod connection;
mod doctor;
mod execution;
mod identity;
mod keys;
mod observe;
mod query;
mod retention;
mod row;
mod stats;
mod status;
mod trigger;
mod upload;
mod watch;
