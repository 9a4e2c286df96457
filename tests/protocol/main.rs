//! The client against a scripted HTTP server: what it sends, and what it makes of answers that a good server never gives.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod hostile;
mod login;
mod logs;
mod oauth;
mod pool;
mod redirects;
mod server;
mod sessions;
mod setup;
mod ssrf;
mod statements;
mod tls;
mod uploads;
