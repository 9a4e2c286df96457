//! Changes to `snowflake_configurations`: save, replace, delete, and mark with what Snowflake said.

use bridge_core::config::Credentials;
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use uuid::Uuid;

use super::sealed::{self, Purpose, Sealed};
use super::{Draft, StoredConfig, account, require, resolve, waiting};
use crate::error::{Error, Result};
use crate::owner::Owner;
use crate::{guards, guc, keys, tx};

/// Class of the lock that whoever adds a configuration to an owner's holds.
const LOCK_CLASS: u16 = 0x5343;

/// Refuses a name that is taken, and another configuration to who has as many as one may have.
///
/// # Errors
/// `23505` if the owner has a configuration of that name; `53400` if there is no room for another.
pub fn require_free(owner: &Owner, name: &str) -> Result<()> {
    match resolve(owner, name)? {
        Some(_) => Err(taken(name)),
        None => require_room(owner),
    }
}

fn require_room(owner: &Owner) -> Result<()> {
    const COUNT: &str = "
        select pg_catalog.count(*) from snowflake_bridge.snowflake_configurations c
         where c.owner_kind = $1 and c.user_id = $2 and c.owner_oid = $3";
    let Some(most) = guc::max_configs_per_owner().filter(|_| guards::ON) else {
        return Ok(());
    };
    let of_owner = [
        owner.kind().into(),
        owner.user_id().into(),
        owner.oid_argument(),
    ];
    // What was committed since the transaction began counts, whatever it sees else.
    let count: Option<i64> = tx::with_latest_snapshot(|| tx::read(COUNT, &of_owner))?;
    if count.unwrap_or(0) < most {
        return Ok(());
    }
    Err(Error::user(
        PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
        format!(
            "user \"{}\" has as many Snowflake configurations as one may have, {most}",
            owner.user_id()
        ),
    )
    .hint(
        "Delete one with snowflake_bridge.delete_config(), change one with update_config(), or have a superuser raise \
         snowflake_bridge.max_configs_per_owner.",
    ))
}

/// The columns that hold what a draft says, and the parameters that [`said`] makes of it, in the same order.
const SAID: &str = "
    account_identifier, warehouse, database, schema, role, username, auth_method, oauth_client_id, oauth_token_url,
    oauth_scope, password_encrypted, private_key_encrypted, private_key_passphrase_encrypted, token_encrypted,
    oauth_token_encrypted, oauth_client_secret_encrypted, last_tested_at";
const SAYING: &str = "
    $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, case when $18 then pg_catalog.now() end";

/// Saves a new configuration. The secret is encrypted before the first tuple exists.
///
/// # Errors
/// As [`require_free`]; if there is no key to encrypt with.
pub fn insert(owner: &Owner, name: &str, draft: &Draft, tested: bool) -> Result<Uuid> {
    let insert = format!(
        "insert into snowflake_bridge.snowflake_configurations
                (id, {SAID}, owner_kind, user_id, owner_oid, name)
         values ($1, {SAYING}, $19, $20, $21, $22)
             on conflict do nothing"
    );
    let id = Uuid::new_v4();
    let sealed = seal(id, owner, draft)?;
    // Another session that adds one to the same owner's is waited for, and then seen.
    tx::lock_number(LOCK_CLASS, owner.fingerprint());
    require_room(owner)?;
    let mut arguments = said(id, draft, sealed, tested);
    arguments.extend([
        owner.kind().into(),
        owner.user_id().into(),
        owner.oid_argument(),
        name.into(),
    ]);
    if write(&insert, &arguments)? == 0 {
        Err(taken(name))
    } else {
        Ok(id)
    }
}

/// Replaces what a configuration says, and lets the uploads go on that waited for other credentials.
///
/// # Errors
/// `40001` if somebody else changed it since it was read; if there is no key to encrypt with.
pub fn update(stored: &StoredConfig, draft: &Draft, tested: bool) -> Result<()> {
    let update = format!(
        "update snowflake_bridge.snowflake_configurations c
            set ({SAID}) = ({SAYING}), last_test_error = null, is_active = true,
                version = c.version + 1, updated_at = pg_catalog.now()
          where c.id = $1 and c.version = $19"
    );
    let sealed = seal(stored.id, &stored.owner, draft)?;
    let mut arguments = said(stored.id, draft, sealed, tested);
    arguments.push(stored.version.into());
    if write(&update, &arguments)? == 0 {
        return Err(Error::user(
            PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
            format!(
                "Snowflake configuration \"{}\" was changed by somebody else meanwhile",
                stored.name
            ),
        )
        .hint("Look at it with snowflake_bridge.get_config() and try again."));
    }
    waiting::resume(stored.id)
}

fn seal(id: Uuid, owner: &Owner, draft: &Draft) -> Result<Sealed> {
    Purpose {
        config_id: id,
        owner,
        account_host: account(&draft.account_identifier)?.host(),
        username: draft.username(),
        auth_method: sealed::auth_method(&draft.credentials),
    }
    .seal(&*keys::load_or_create()?, &draft.credentials)
}

/// Parameters 1 to 18: the id, and what [`SAYING`] names.
fn said(id: Uuid, draft: &Draft, sealed: Sealed, tested: bool) -> Vec<DatumWithOid<'_>> {
    let client = match &draft.credentials {
        Credentials::OAuthClient(client) => Some(client),
        _ => None,
    };
    vec![
        datum(id),
        draft.account_identifier.as_str().into(),
        draft.warehouse.as_deref().into(),
        draft.database.as_deref().into(),
        draft.schema.as_deref().into(),
        draft.role.as_deref().into(),
        draft.username.as_deref().into(),
        sealed::auth_method(&draft.credentials).into(),
        client.map(|client| client.client_id.as_str()).into(),
        client.and_then(|client| client.token_url.as_deref()).into(),
        client.and_then(|client| client.scope.as_deref()).into(),
        sealed.password.into(),
        sealed.private_key.into(),
        sealed.private_key_passphrase.into(),
        sealed.token.into(),
        sealed.oauth_token.into(),
        sealed.oauth_client_secret.into(),
        tested.into(),
    ]
}

/// Deletes a configuration, and ends the uploads that wait to use it.
///
/// # Errors
/// `42704` if there is none.
pub fn delete(owner: &Owner, name: &str) -> Result<()> {
    const DELETE: &str = "delete from snowflake_bridge.snowflake_configurations c where c.id = $1";
    let stored = require(owner, Some(name))?;
    write(DELETE, &[datum(stored.id)])?;
    waiting::end(&stored)
}

/// Snowflake accepted this version of a configuration: what waited for that may go on.
///
/// # Errors
/// If the query fails.
pub fn mark_tested(id: Uuid, version: i64) -> Result<()> {
    const TESTED: &str = "
        update snowflake_bridge.snowflake_configurations c
           set last_tested_at = pg_catalog.now(), last_test_error = null, is_active = true
         where c.id = $1 and c.version = $2";
    match write(TESTED, &[datum(id), version.into()])? {
        0 => Ok(()),
        _ => waiting::resume(id),
    }
}

/// Snowflake let this version of a configuration in, which nobody had seen yet, or not since it failed. Waits for nobody: what
/// somebody is at is marked another time. Returns whether it is marked now.
///
/// # Errors
/// If the query fails.
pub fn mark_let_in(id: Uuid, version: i64) -> Result<bool> {
    const LET_IN: &str = "
        update snowflake_bridge.snowflake_configurations c
           set last_tested_at = pg_catalog.now(), last_test_error = null
         where c.id = (select t.id from snowflake_bridge.snowflake_configurations t
             where t.id = $1 and t.version = $2 and t.is_active
               and (t.last_tested_at is null or t.last_test_error is not null) for update skip locked)";
    const IS_LET_IN: &str = "select exists (select from snowflake_bridge.snowflake_configurations c
        where c.id = $1 and c.last_tested_at is not null and c.last_test_error is null)";
    if write(LET_IN, &[datum(id), version.into()])? > 0 {
        return Ok(true);
    }
    Ok(tx::read::<bool>(IS_LET_IN, &[datum(id)])?.unwrap_or(false))
}

/// A test of this version of a configuration failed for a reason that may pass, or that is not the secret's fault.
///
/// # Errors
/// If the query fails.
pub fn mark_failed(id: Uuid, version: i64, message: &str) -> Result<()> {
    const FAILED: &str = "
        update snowflake_bridge.snowflake_configurations c
           set last_tested_at = pg_catalog.now(), last_test_error = $3
         where c.id = $1 and c.version = $2";
    write(FAILED, &[datum(id), version.into(), message.into()]).map(drop)
}

/// Snowflake refused the credentials of this version of a configuration. They are not tried again before it changes, or
/// somebody tests it with success: repeated tries would lock the Snowflake user out.
///
/// # Errors
/// If the query fails.
pub fn mark_refused(id: Uuid, version: i64, message: &str) -> Result<()> {
    const REFUSED: &str = "
        update snowflake_bridge.snowflake_configurations c
           set last_tested_at = pg_catalog.now(), last_test_error = $3, is_active = false
         where c.id = $1 and c.version = $2";
    write(REFUSED, &[datum(id), version.into(), message.into()]).map(drop)
}

fn taken(name: &str) -> Error {
    Error::user(
        PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION,
        format!("Snowflake configuration \"{name}\" already exists"),
    )
    .hint("Change it with snowflake_bridge.update_config(), or give the new one another name.")
}

/// Runs a statement that writes; the number of rows it wrote.
pub(super) fn write(statement: &str, args: &[DatumWithOid]) -> Result<usize> {
    Spi::connect_mut(|client| Ok(client.update(statement, None, args)?.len()))
}

pub(super) fn datum(id: Uuid) -> DatumWithOid<'static> {
    pgrx::Uuid::from_bytes(*id.as_bytes()).into()
}
