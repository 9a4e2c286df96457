//! A file into a stage: ask Snowflake where to put it, encrypt it if the stage wants that, and hand it to the storage.

mod endpoint;
mod google;
mod object_client;
mod object_storage;
mod refusal;
mod source;
mod target;
mod transfer;

use std::path::Path;

use source::Source;
use target::Target;

use super::session::{Session, Statement};
use super::sql;
use super::wire::PutData;
use crate::Result;

/// Told how many of the file's bytes have been handed to storage.
type Progress<'a> = &'a (dyn Fn(u64) + Send + Sync);

impl Session {
    /// Puts a local file into a directory of the user's stage under a name, replacing what is there. `progress` is told
    /// how many of the file's bytes have been handed to storage; it starts over where an upload has to.
    ///
    /// # Errors
    /// `Configuration` if the stage's storage is not supported or not allowed; `Transient` if it cannot be reached;
    /// whatever Snowflake says to the PUT statement.
    pub async fn put(
        &mut self,
        local: &Path,
        stage_dir: &str,
        file_name: &str,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        self.put_known(local, None, stage_dir, file_name, progress)
            .await
    }

    /// As [`Session::put`], for a file whose digest may be known: SHA-256 in base64. It then is read only once.
    ///
    /// # Errors
    /// As [`Session::put`]; `Internal` if the file has another digest.
    pub async fn put_known(
        &mut self,
        local: &Path,
        digest: Option<&str>,
        stage_dir: &str,
        file_name: &str,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        let statement = sql::put(stage_dir, file_name)?;
        let source = Source::open(local, digest).await?;
        let mut renewed = false;
        loop {
            // Each time a statement of its own: its answer holds fresh credentials, which a repeated one would not.
            let answer: PutData = self.run(&Statement::new(statement.as_str())).await?;
            let target = Target::new(&self.transport.http, answer, file_name)?;
            match target.upload(&source, progress).await {
                Ok(()) => return Ok(()),
                Err(failure) if failure.may_be_expiry && !renewed => renewed = true,
                Err(failure) => return Err(failure.error),
            }
        }
    }
}

/// How the place that an answer names is shown.
///
/// # Errors
/// As [`Target::new`].
#[cfg(any(fuzzing, test))]
pub(super) fn describe_target(http: &super::http::Http, answer: PutData) -> Result<String> {
    Target::new(http, answer, "part-00000.parquet").map(|target| format!("{target:?}"))
}
