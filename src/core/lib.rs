//! The part of `snowflake_bridge` that needs no database server.
//!
//! A result travels through this crate in one direction: [`json`] tells the column types of a result and turns it into
//! values, [`batch`] collects values into Arrow record batches, [`parquet`] and [`spool`] write them to files on local
//! disk, within the bounds of [`memory`], and [`upload`] carries those files into a Snowflake table through [`snowflake`]. [`types`] is the one place
//! that says how a value's type is called in each of these worlds. [`crypto`] and [`keyring`] seal the secrets that
//! [`config`] needs to open a session.
//!
//! Nothing here asks the database that the values come from: the crate builds, and is tested, without it. Of its forms it reads
//! two, those in which it stores JSON and decimal numbers.
#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(
    any(fuzzing, test),
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

pub mod aside;
pub mod batch;
pub mod calendar;
pub mod config;
pub mod crypto;
pub mod culprits;
pub mod decimal;
pub mod error;
pub mod evolve;
pub mod failpoint;
pub mod fairness;
pub mod json;
pub mod keyring;
pub mod memory;
pub mod names;
pub mod parquet;
pub mod retry;
pub mod snowflake;
pub mod spool;
mod threads;
pub mod types;
pub mod upload;

pub use error::{Error, ErrorKind, Result};
