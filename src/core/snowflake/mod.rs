//! Snowflake as a client sees it: log in, run statements, put files into a stage.
//!
//! From the bottom: `resolver` and `http` decide where connections may go; `route` and `transport` carry one
//! request; `auth` proves the user; `login` and `session` run statements; `stage` puts files; `pool` keeps sessions.
//! `wire` holds the shapes of messages, `errors` what refusals mean, and [`sql`] the texts of statements.

mod abort;
mod auth;
mod chunks;
pub mod clock;
mod encryption;
mod errors;
mod farewell;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod heartbeat;
mod http;
mod key_pair;
mod login;
mod network_policy;
mod oauth;
mod pem;
mod pool;
mod resolver;
mod result;
mod route;
mod rows;
#[cfg(any(fuzzing, test))]
mod script;
mod session;
pub mod sql;
mod stage;
mod storage;
mod text;
mod tokens;
mod transport;
mod wire;

use async_trait::async_trait;

pub(crate) use errors::STAGED_FILE_MISSING;
pub use farewell::all_said;
pub use key_pair::public_key_statement;
pub use login::SessionInfo;
pub use network_policy::has_network_policy;
pub use pool::{Pool, PoolKey, PooledSession};
pub use result::QueryResult;
pub use session::{Session, SessionOptions, Statement};
pub use stage::{LocalFile, Written};

use crate::Result;

/// What an upload needs of Snowflake.
#[async_trait]
pub trait Warehouse: Send {
    /// Runs a statement; see [`Session::execute`].
    ///
    /// # Errors
    /// See [`Session::execute`].
    async fn execute(&mut self, statement: &Statement) -> Result<QueryResult>;

    /// Puts files into the user's stage; see [`Session::put_all`].
    ///
    /// # Errors
    /// See [`Session::put_all`].
    async fn put(
        &mut self,
        directory: &str,
        files: &[LocalFile<'_>],
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()>;
}

#[async_trait]
impl Warehouse for Session {
    async fn execute(&mut self, statement: &Statement) -> Result<QueryResult> {
        Session::execute(self, statement).await
    }

    async fn put(
        &mut self,
        directory: &str,
        files: &[LocalFile<'_>],
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        Session::put_all(self, directory, files, progress).await
    }
}
