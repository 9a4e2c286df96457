//! What a change of a configuration means for the uploads that wait to use it.

use uuid::Uuid;

use super::StoredConfig;
use super::changes::{datum, write};
use crate::error::Result;
use crate::uploads::{FIND_ROWS, MAY_BE_LOADED, UNDECIDED};

/// Uploads that waited for other credentials are due again: those that began with this configuration, and those that
/// would begin with it (no name means `default`), as their owner or as the owner of their watch. One too many does no
/// harm, it waits again; one that a newer upload of its execution has overtaken is canceled when it is claimed. As `retry`, not
/// `queued`: of an execution only one may be queued, and a newer one may be.
pub fn resume(config_id: Uuid) -> Result<()> {
    const RESUME: &str = "
        update snowflake_bridge.uploads u
           set state = 'retry', next_attempt_at = pg_catalog.now(), completed_at = null,
               needs_mirror = true, mirror_after = pg_catalog.now()
          from snowflake_bridge.snowflake_configurations c
         where c.id = $1 and u.state = 'needs_credentials'
           and (u.config_id = c.id
                or u.config_id is null and coalesce(u.options ->> 'config', 'default') = c.name
                   and ((u.owner_kind, u.user_id, u.owner_oid) = (c.owner_kind, c.user_id, c.owner_oid)
                        or c.owner_kind = 'role'
                           and (c.user_id, c.owner_oid) in (select w.user_id, w.owner_oid
                                                              from snowflake_bridge.watches w where w.id = u.watch_id)))";
    write(RESUME, &[datum(config_id)]).map(drop)
}

/// Uploads that would have used a configuration that is no more have failed: those that began with it, and its owner's
/// that name it (no name means `default`) and have not begun. Undecided ones wait for another configuration by which Snowflake
/// can be asked. One in flight ends as it may; its next attempt finds none.
pub fn end(deleted: &StoredConfig) -> Result<()> {
    let end = format!("
        update snowflake_bridge.uploads u
           set state = case when {UNDECIDED} then 'retry' else 'failed' end,
               completed_at = case when not ({UNDECIDED}) then pg_catalog.now() end, needs_mirror = true, mirror_after = pg_catalog.now(),
               error_message = $6, error_sqlstate = '42704', error_code = null, query_id = null,
               error_hint = 'Make a configuration with snowflake_bridge.create_config, then call snowflake_bridge.retry_upload.'
                   || case when {MAY_BE_LOADED} then ' {FIND_ROWS}' else '' end
         where u.state in ('queued', 'retry', 'needs_credentials')
           and (u.config_id = $1
                or u.config_id is null and u.owner_kind = $2 and u.user_id = $3 and u.owner_oid = $4
                   and coalesce(u.options ->> 'config', 'default') = $5)");
    let name = deleted.name.as_str();
    let owner = &deleted.owner;
    let message = format!("the Snowflake configuration \"{name}\" was deleted");
    let args = [
        datum(deleted.id),
        owner.kind().into(),
        owner.user_id().into(),
        owner.oid_argument(),
        name.into(),
        message.into(),
    ];
    write(&end, &args).map(drop)
}
