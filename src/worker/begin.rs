//! The beginning of an attempt, on the main thread: whose connection it uses, what there is to load, and the reading of
//! the row into the spool. What comes out is a job that needs PostgreSQL no more.

use std::path::Path;
use std::time::Instant;

use bridge_core::ErrorKind;
use bridge_core::config::ConnectionSettings;
use bridge_core::snowflake::PoolKey;
use bridge_core::spool::{Manifest, SpoolOptions};
use pgrx::bgworkers::BackgroundWorker;
use pgrx::prelude::*;
use uuid::Uuid;

use super::runner::Job;
use crate::configs::{self, StoredConfig};
use crate::error::{Error, Result};
use crate::options::TargetOptions;
use crate::owner::Owner;
use crate::source::{self, OutOfRange, ReadOptions, spooled};
use crate::uploads::{self, Claimed};
use crate::watches::Watch;
use crate::{guc, tx};

/// Snowflake's limit of QUERY_TAG, in characters.
const MAX_QUERY_TAG: usize = 2000;

/// Prepares everything the network thread needs; what it reported until `read_at` has been recorded. Runs transactions of its own; reading is a read-only one.
///
/// # Errors
/// Whatever makes this attempt impossible.
pub fn begin(upload: &Claimed, spool_root: &Path, read_at: Instant) -> Result<Job> {
    let options = TargetOptions::parse(&upload.options)?;
    let Plan {
        watch,
        config,
        settings,
        installation_id,
        relation,
        default_table,
        replaces,
    } = tx::transaction(|| plan(upload, &options))?;
    if !config.is_active {
        // By this, update_config finds the upload again.
        tx::transaction(|| uploads::record_config(upload.id, config.id))?;
        return Err(bridge_core::Error::new(
            ErrorKind::Credentials,
            format!(
                "Snowflake refused the credentials of configuration \"{}\"",
                config.name
            ),
        )
        .into());
    }
    let (table, schema, database) = options.target(&default_table)?;
    let spool = match &watch {
        Some(_) => spool_root
            .join(upload.upload_id.to_string())
            .join(upload.claim.to_string()),
        None => spooled::of_caller(spool_root, upload.upload_id),
    };

    // Another account or user has another stage, and knows nothing of what was loaded elsewhere.
    let destination = config.stage_owner(&settings.account);
    let is_same = upload.staged_for.as_ref() == Some(&destination);
    let (manifest, staged_claim) = match (&upload.manifest, upload.staged_claim) {
        (Some(manifest), Some(claim)) if is_same => {
            tx::transaction(|| uploads::record_config(upload.id, config.id))?;
            (manifest.clone(), Some(claim))
        }
        _ => {
            let manifest = match &watch {
                Some(watch) => read(upload, watch, &options, &spool)?,
                None => what_caller_read(upload, &spool)?,
            };
            tx::transaction(|| {
                uploads::record_read(upload.id, config.id, &destination, &manifest)
            })?;
            (manifest, None)
        }
    };

    let strategy = options.strategy(&manifest, &upload.execution_id)?;
    Ok(Job {
        id: upload.id,
        upload_id: upload.upload_id,
        installation_id,
        claim: upload.claim,
        pool_key: PoolKey::new(config.id, config.version),
        settings,
        read_at,
        query_tag: query_tag(upload),
        table,
        schema,
        database,
        spool,
        manifest,
        staged_claim,
        transaction: upload.transaction.clone().filter(|_| is_same),
        replaces,
        strategy,
        cluster_by: options.cluster_by(),
        evolve_schema: options.evolve_schema(),
        comment: format!("Loaded by snowflake_bridge from {relation}"),
    })
}

/// What our own tables say about an upload.
struct Plan {
    /// None for rows that their caller has read.
    watch: Option<Watch>,
    config: StoredConfig,
    settings: ConnectionSettings,
    installation_id: Uuid,
    relation: String,
    default_table: String,
    replaces: Vec<Uuid>,
}

fn plan(upload: &Claimed, options: &TargetOptions) -> Result<Plan> {
    let watch = upload.watch_id.map(watch).transpose()?;
    let config = config(upload, watch.as_ref(), options)?;
    let (relation, default_table) = match &watch {
        Some(watch) => (
            watch
                .qualified_name()?
                .ok_or_else(|| Error::missing("the watched relation does not exist any more"))?,
            default_table(watch)?,
        ),
        // The table is always named.
        None => ("a query".to_owned(), String::new()),
    };
    Ok(Plan {
        settings: config.open()?,
        installation_id: uploads::installation_id()?,
        relation,
        default_table,
        replaces: uploads::replaced_by(upload)?,
        watch,
        config,
    })
}

fn read(
    upload: &Claimed,
    watch: &Watch,
    options: &TargetOptions,
    spool: &Path,
) -> Result<Manifest> {
    if options
        .on_out_of_range
        .is_some_and(|choice| choice != OutOfRange::Error)
    {
        return Err(Error::invalid(
            "on_out_of_range is for upload_query and upload_table: of inline results nothing is left out",
        ));
    }
    spooled::make_private(spool.parent().unwrap_or(spool))?;
    tx::transaction(|| {
        // Whatever code the owner attached to the relation, reading it changes nothing.
        Spi::run("set transaction read only")?;
        source::read(
            watch,
            &ReadOptions {
                execution_id: &upload.execution_id,
                user_id: upload.row_user_id.as_deref(),
                upload_id: upload.upload_id,
                spool,
                plan: options.plan(),
                files: SpoolOptions::new(guc::target_file_size()),
            },
        )
    })
}

/// The files that the upload's caller has left, if they are all there.
fn what_caller_read(upload: &Claimed, spool: &Path) -> Result<Manifest> {
    let gone = || {
        Error::missing("the rows of this upload are not in the spool directory any more").hint(
            "The query is not kept, so nobody can read them again: call upload_query or upload_table again.",
        )
    };
    let manifest = upload.manifest.clone().ok_or_else(gone)?;
    for file in &manifest.files {
        let found = std::fs::metadata(spool.join(&file.name));
        if !found.is_ok_and(|found| found.is_file() && found.len() == file.bytes) {
            return Err(gone());
        }
    }
    Ok(manifest)
}

fn watch(id: i64) -> Result<Watch> {
    Watch::load(id)?
        .filter(|watch| watch.is_active)
        .ok_or_else(|| Error::missing("the relation of this upload is not watched any more"))
}

/// A query uses its caller's, a watch its owner's own configuration. Only where a superuser said so does it use that of the user whom the
/// row names, and the owner's for users who have none.
fn config(
    upload: &Claimed,
    watch: Option<&Watch>,
    options: &TargetOptions,
) -> Result<StoredConfig> {
    let name = options.config_name();
    let Some(watch) = watch else {
        return configs::require(&upload.owner, Some(name));
    };
    if watch.act_for_users
        && let Some(user) = &upload.row_user_id
    {
        let user = Owner::Jwt {
            subject: user.clone(),
        };
        if let Some(config) = configs::resolve(&user, name)? {
            return Ok(config);
        }
    }
    if let Some(config) = configs::resolve(&watch.owner, name)? {
        return Ok(config);
    }
    let user = match (&upload.row_user_id, watch.act_for_users) {
        (Some(user), true) => user,
        _ => watch.owner.user_id(),
    };
    let what = if name == "default" {
        "no Snowflake configuration".to_owned()
    } else {
        format!("no Snowflake configuration \"{name}\"")
    };
    Err(Error::missing(format!("{what} for user \"{user}\"")).hint(
        "Make one with snowflake_bridge.create_config, then call snowflake_bridge.retry_upload.",
    ))
}

/// `<relation>_results`.
fn default_table(watch: &Watch) -> Result<String> {
    let name = Spi::get_one_with_args::<String>(
        "select c.relname::text from pg_catalog.pg_class c where c.oid = $1",
        &[watch.relation.into()],
    )?;
    Ok(format!("{}_results", name.unwrap_or_default()))
}

/// What Snowflake's query history shows beside each statement: where it comes from.
fn query_tag(upload: &Claimed) -> String {
    // The worker is started with the name of its database.
    let database = BackgroundWorker::get_extra();
    let tag = |execution_id: &str| {
        serde_json::json!({
            "application": "snowflake_bridge", "database": database, "upload": upload.id,
            "upload_id": upload.upload_id, "execution_id": execution_id,
        })
        .to_string()
    };
    let whole = tag(&upload.execution_id);
    if whole.chars().count() <= MAX_QUERY_TAG {
        return whole;
    }
    // The ids of ours find the upload as well.
    tag("")
}
