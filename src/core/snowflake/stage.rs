//! A file into a stage: ask Snowflake where to put it, encrypt it if the stage wants that, and hand it to the storage.

mod endpoint;
mod google;
mod object_client;
mod object_storage;
mod refusal;
mod source;
mod target;
mod transfer;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::stream::{self, StreamExt};
use refusal::UploadFailure;
use source::Source;
use target::{Target, serves_all};

use super::http::Http;
use super::session::{Session, Statement};
use super::sql;
use super::transport::lock;
use super::wire::PutData;
use crate::Result;

/// Files of one statement that are on their way at once: a second one fills the time in which the first waits or is encrypted, and
/// each takes memory for a few parts.
const AT_ONCE: usize = 2;
/// The same of files no larger than [`SMALL`], which take next to no memory and spend their time waiting.
const SMALL_AT_ONCE: usize = 8;
/// In bytes.
const SMALL: u64 = 1024 * 1024;

/// Told how many of a file's bytes have been handed to storage.
type Progress<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// A file of this machine that is to be staged.
#[derive(Debug, Clone)]
pub struct LocalFile<'a> {
    /// Where it is.
    pub path: PathBuf,
    /// What whoever wrote it has noted. Without, the file is read twice.
    pub written: Option<Written<'a>>,
    /// What it is called in the stage's directory; it may lie in directories below.
    pub name: &'a str,
}

/// What a file was when it was written, and must still be.
#[derive(Debug, Clone, Copy)]
pub struct Written<'a> {
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its bytes in base64.
    pub digest: &'a str,
}

impl Session {
    /// Puts a file into a directory of the user's stage under a name, as [`Session::put_all`] does.
    ///
    /// # Errors
    /// As [`Session::put_all`].
    pub async fn put(
        &mut self,
        local: &Path,
        stage_dir: &str,
        file_name: &str,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        let file = LocalFile {
            path: local.to_owned(),
            written: None,
            name: file_name,
        };
        self.put_all(stage_dir, &[file], progress).await
    }

    /// Puts files into a directory of the user's stage, replacing what is there. `progress` is told how many of their bytes
    /// have been handed to storage; it goes back where a file has to start over.
    ///
    /// # Errors
    /// `Configuration` if the stage's storage is not supported or not allowed; `Transient` if it cannot be reached;
    /// `Internal` if a file is not what was written; whatever Snowflake says to the PUT statement.
    pub async fn put_all(
        &mut self,
        stage_dir: &str,
        files: &[LocalFile<'_>],
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        let names: Vec<&str> = files.iter().map(|file| file.name).collect();
        sql::check_names(&names)?;
        let mut sources = Vec::with_capacity(files.len());
        for file in files {
            sources.push((Source::new(&file.path, file.written).await?, file.name));
        }
        let transfers = Transfers {
            http: self.transport.http.clone(),
            files: sources,
            sent: Mutex::new(vec![0; files.len()]),
            progress,
        };
        let mut waiting: Vec<usize> = (0..files.len()).collect();
        let (mut is_one_by_one, mut is_renewed) = (false, false);
        while !waiting.is_empty() {
            let at_once = if is_one_by_one { 1 } else { waiting.len() };
            let batch: Vec<usize> = waiting.iter().copied().take(at_once).collect();
            let (directory, names) = transfers.addressed(stage_dir, &batch);
            // Each time a statement of its own: its answer holds fresh credentials, which a repeated one would not.
            let statement = Statement::new(sql::put(&directory, &names)?);
            let answer: PutData = self.run(&statement).await?;
            if batch.len() > 1 && !serves_all(&answer) {
                is_one_by_one = true;
                continue;
            }
            let before = waiting.len();
            match transfers.send(&answer, &batch, &names, &mut waiting).await {
                None => is_renewed = false,
                // Credentials that were good for something may have expired since, and so may the first ones.
                Some(failure)
                    if failure.may_be_expiry && (waiting.len() < before || !is_renewed) =>
                {
                    is_renewed = true;
                }
                Some(failure) => return Err(failure.error),
            }
        }
        Ok(())
    }
}

/// Files on their way, each told by its place.
struct Transfers<'a> {
    http: Http,
    files: Vec<(Source, &'a str)>,
    /// How many bytes of each have been handed to storage.
    sent: Mutex<Vec<u64>>,
    progress: Progress<'a>,
}

impl Transfers<'_> {
    /// The directory of the statement for these files, and their names in it. A file by itself is addressed in its own
    /// directory, as who signs an address for it expects.
    fn addressed(&self, directory: &str, places: &[usize]) -> (String, Vec<&str>) {
        let files = places.iter().filter_map(|place| self.files.get(*place));
        let names: Vec<&str> = files.map(|(_, name)| *name).collect();
        match names[..] {
            [one] => match one.rsplit_once('/') {
                Some((below, name)) => {
                    let directory = directory.trim_end_matches('/');
                    (format!("{directory}/{below}/"), vec![name])
                }
                None => (directory.to_owned(), names),
            },
            _ => (directory.to_owned(), names),
        }
    }

    /// Sends the files at these places under these names, each of which then waits no more. After a failure none is begun any
    /// more; those that are on their way end first.
    async fn send(
        &self,
        answer: &PutData,
        places: &[usize],
        names: &[&str],
        waiting: &mut Vec<usize>,
    ) -> Option<UploadFailure> {
        let has_failed = AtomicBool::new(false);
        let mut all = Vec::with_capacity(places.len());
        for (place, name) in places.iter().zip(names) {
            all.push(self.send_one(answer, *place, name, &has_failed));
        }
        let are_small = self.files.iter().all(|(source, _)| source.size <= SMALL);
        let at_once = if are_small { SMALL_AT_ONCE } else { AT_ONCE };
        let mut under_way = stream::iter(all).buffer_unordered(at_once);
        let mut failure = None;
        while let Some(ended) = under_way.next().await {
            match ended {
                Some((place, Ok(()))) => waiting.retain(|other| *other != place),
                Some((_, Err(error))) => failure = failure.or(Some(error)),
                None => {}
            }
        }
        failure
    }

    /// Sends a file and tells what came of it, unless something has failed before it began.
    async fn send_one(
        &self,
        answer: &PutData,
        place: usize,
        name: &str,
        has_failed: &AtomicBool,
    ) -> Option<(usize, Result<(), UploadFailure>)> {
        let (source, _) = self.files.get(place)?;
        if has_failed.load(Ordering::Relaxed) {
            return None;
        }
        let sent = match Target::new(&self.http, answer, name) {
            Ok(target) => {
                let report = |bytes: u64| self.note(place, bytes);
                target.upload(source, &report).await
            }
            Err(error) => Err(error.into()),
        };
        has_failed.fetch_or(sent.is_err(), Ordering::Relaxed);
        Some((place, sent))
    }

    fn note(&self, place: usize, bytes: u64) {
        let mut all = lock(&self.sent);
        if let Some(sent) = all.get_mut(place) {
            *sent = bytes;
        }
        (self.progress)(all.iter().sum());
    }
}

/// How the place that an answer names is shown.
///
/// # Errors
/// As [`Target::new`].
#[cfg(any(fuzzing, test))]
pub(super) fn describe_target(http: &super::http::Http, answer: PutData) -> Result<String> {
    Target::new(http, &answer, "part-00000.parquet").map(|target| format!("{target:?}"))
}
