//! What our own tables say about an upload that is begun: what is read, and whose connection it uses.

use uuid::Uuid;

use super::reading;
use crate::configs::{self, StoredConfig};
use crate::error::{Error, Result};
use crate::options::TargetOptions;
use crate::owner::Owner;
use crate::uploads::{self, Claimed};
use crate::watches::Watch;
use crate::{guards, tx};

/// What our own tables say about an upload.
pub(super) struct Plan {
    /// None for rows that their caller has read.
    pub watch: Option<Watch>,
    /// Whose connection is used: another one than the upload's lane says, if the watch has changed hands since it was queued.
    pub owner: Owner,
    pub config: StoredConfig,
    pub installation_id: Uuid,
    /// The watched relation is not there any more, after which the table may be named.
    pub is_dropped: bool,
    pub relation: String,
    pub default_table: String,
    pub replaces: Vec<Uuid>,
}

/// Reads what there is to know of an upload before its rows are. Needs a transaction.
///
/// # Errors
/// If it cannot be begun: its watch has ended, or its connection is not there.
pub(super) fn plan(upload: &Claimed, options: &TargetOptions) -> Result<Plan> {
    let watch = upload.watch_id.map(reading::watch).transpose()?;
    // What an earlier attempt may have loaded is asked about all the same.
    let may_have_ended = upload.is_undecided();
    if let Some(watch) = &watch
        && !may_have_ended
    {
        watch.require_active()?;
    }
    let (owner, config) = config(upload, watch.as_ref(), options)?;
    let (relation, default_table) = match &watch {
        Some(watch) if may_have_ended => (watch.qualified_name()?, default_table(watch)?),
        Some(watch) => (Some(watch.existing_name()?), default_table(watch)?),
        // The table is always named.
        None => {
            let named = upload.manifest.as_ref().and_then(|of| of.relation.clone());
            (
                Some(named.unwrap_or_else(|| "a query".to_owned())),
                String::new(),
            )
        }
    };
    Ok(Plan {
        installation_id: uploads::installation_id()?,
        is_dropped: relation.is_none(),
        relation: relation.unwrap_or_default(),
        default_table,
        replaces: uploads::replaced_by(upload)?,
        watch,
        owner,
        config,
    })
}

/// A query uses its caller's configuration, a watch its owner's; one for which a superuser said so that of the user whom the row
/// names, and no other: whoever writes the row says where to, and must not do so with somebody else's rights.
fn config(
    upload: &Claimed,
    watch: Option<&Watch>,
    options: &TargetOptions,
) -> Result<(Owner, StoredConfig)> {
    let name = options.config_name();
    let Some(watch) = watch else {
        let owner = upload.lane.owner.clone();
        let config = configs::require(&owner, Some(name))?;
        return Ok((owner, config));
    };
    let user = upload
        .row_user_id
        .as_deref()
        .filter(|user| !user.is_empty());
    let owner = match user {
        Some(user) if watch.act_for_users => Owner::Jwt {
            subject: user.to_owned(),
        },
        None if watch.act_for_users && guards::ON => {
            return Err(Error::missing("the row names no user, whose Snowflake configuration would be used").hint(format!(
                "Write the user into column \"{}\", then call snowflake_bridge.upload with the execution's id.",
                watch.columns.user_id.as_deref().unwrap_or_default()
            )));
        }
        _ => watch.owner.clone(),
    };
    if let Some(config) = configs::resolve(&owner, name)? {
        return Ok((owner, config));
    }
    if !guards::ON
        && let Some(config) = configs::resolve(&watch.owner, name)?
    {
        return Ok((owner, config));
    }
    let what = if name == configs::DEFAULT_NAME {
        "no Snowflake configuration".to_owned()
    } else {
        format!("no Snowflake configuration \"{name}\"")
    };
    let by_whom = if watch.act_for_users {
        "as that user, or with user_id as a role that acts for users"
    } else {
        "as that role"
    };
    Err(Error::missing(format!("{what} for user \"{}\"", owner.user_id())).hint(format!(
        "Make one with snowflake_bridge.create_config {by_whom}, then call snowflake_bridge.retry_upload."
    )))
}

/// `<relation>_results`; of a relation that was dropped, nobody needs it.
fn default_table(watch: &Watch) -> Result<String> {
    let name = tx::read::<String>(
        "select (select c.relname::text from pg_catalog.pg_class c where c.oid = $1)",
        &[watch.relation.into()],
    )?;
    Ok(format!("{}_results", name.unwrap_or_default()))
}
