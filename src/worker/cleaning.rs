//! Tidying a stage up, on the network thread: best effort, and over a session that is there anyway where it can be. What stays
//! behind costs storage, not correctness.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bridge_core::config::ConnectionSettings;
use bridge_core::snowflake::{Pool, PoolKey, PooledSession};
use bridge_core::upload::leftovers;
use bridge_core::{Error, ErrorKind, Result};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::report::{Event, Reporter};
use crate::net;
use crate::uploads::Claim;

/// Files of an upload that nobody remembers stay for so long: whoever restored a database from a backup may want to look.
const FORGOTTEN_FOR: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Uploads of one configuration whose files are to go.
pub(super) struct Cleaning {
    pub pool_key: PoolKey,
    pub settings: ConnectionSettings,
    /// When the settings were read.
    pub read_at: Instant,
    pub query_tag: String,
    pub installation_id: Uuid,
    /// What they have left up to their last claims.
    pub uploads: Vec<(Claim, Uuid)>,
}

/// Starts it. It reports each upload whose files are gone as [`Event::Cleaned`], and [`Event::CleaningEnded`] at its end.
///
/// # Errors
/// If the network thread cannot be started.
pub(super) fn start(
    cleaning: Cleaning,
    pool: Arc<Pool>,
    reporter: Reporter,
) -> crate::error::Result<()> {
    net::spawn(async move {
        let result = net::guarded(clean(&cleaning, &pool, &reporter)).await;
        // Nobody is left to hear it when the worker is shutting down.
        let _ = reporter.send(Event::CleaningEnded {
            config: cleaning.pool_key,
            result,
        });
    })?;
    Ok(())
}

async fn clean(cleaning: &Cleaning, pool: &Pool, reporter: &Reporter) -> Result<()> {
    let mut session = pool
        .acquire(
            &cleaning.pool_key,
            &cleaning.settings,
            cleaning.read_at,
            &cleaning.query_tag,
        )
        .await?;
    for &(claim, upload) in &cleaning.uploads {
        let installation = cleaning.installation_id;
        leftovers::remove_until(installation, upload, claim.number, &mut session).await?;
        reporter.send(Event::Cleaned { claim })?;
    }
    session.release();
    Ok(())
}

/// Looks through the whole directory of the installation, for what no upload is known to have left.
///
/// # Errors
/// What Snowflake answered.
pub(super) async fn sweep(
    installation: Uuid,
    session: &mut PooledSession,
    reporter: &Reporter,
) -> Result<()> {
    let found = leftovers::find(installation, FORGOTTEN_FOR, session).await?;
    if found.is_empty() {
        return Ok(());
    }
    let (answer, answered) = oneshot::channel();
    reporter.send(Event::FoundInStage { found, answer })?;
    let removable = answered
        .await
        .map_err(|_| Error::new(ErrorKind::Canceled, "the worker is shutting down"))?;
    for (upload, claim) in removable {
        leftovers::remove_until(installation, upload, claim, session).await?;
    }
    Ok(())
}
