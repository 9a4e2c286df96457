//! The SQL functions: thin shells, grouped as the user sees them. What they do lies in the modules beside `api`.

mod access;
mod config;
mod connection;
mod doctor;
mod execution;
mod identity;
mod observe;
mod trigger;
mod upload;
mod watch;
