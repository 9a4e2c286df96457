//! Functions that save, show, change and delete a caller's Snowflake configurations.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use secrecy::SecretString;

use crate::configs::{self, DEFAULT_NAME, Given, GivenSecrets};
use crate::error::Result;
use crate::owner::Owner;
use crate::sandbox::as_extension_owner;
use crate::worker::registry::{self, Wake};
use crate::{net, probe, secrets};

#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::too_many_arguments)] // Named arguments in SQL.
fn create_config(
    account_identifier: Option<&str>,
    warehouse: default!(Option<&str>, "NULL"),
    database: default!(Option<&str>, "NULL"),
    schema: default!(Option<&str>, "'PUBLIC'"),
    username: default!(Option<&str>, "NULL"),
    password: default!(Option<&str>, "NULL"),
    private_key: default!(Option<&str>, "NULL"),
    private_key_passphrase: default!(Option<&str>, "NULL"),
    token: default!(Option<&str>, "NULL"),
    role: default!(Option<&str>, "NULL"),
    name: default!(Option<&str>, "'default'"),
    verify: default!(Option<bool>, "true"),
    user_id: default!(Option<&str>, "NULL"),
) -> Result<pgrx::Uuid, ErrorReport> {
    secrets::hide_statement(c"snowflake_bridge: create_config");
    let secrets = given_secrets(password, private_key, private_key_passphrase, token);
    let given = given(
        account_identifier,
        warehouse,
        database,
        schema,
        role,
        username,
        secrets,
    );
    Ok(create(given, name, verify, user_id)?)
}

#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::too_many_arguments)]
fn update_config(
    name: default!(Option<&str>, "'default'"),
    account_identifier: default!(Option<&str>, "NULL"),
    warehouse: default!(Option<&str>, "NULL"),
    database: default!(Option<&str>, "NULL"),
    schema: default!(Option<&str>, "NULL"),
    username: default!(Option<&str>, "NULL"),
    password: default!(Option<&str>, "NULL"),
    private_key: default!(Option<&str>, "NULL"),
    private_key_passphrase: default!(Option<&str>, "NULL"),
    token: default!(Option<&str>, "NULL"),
    role: default!(Option<&str>, "NULL"),
    verify: default!(Option<bool>, "true"),
    user_id: default!(Option<&str>, "NULL"),
) -> Result<(), ErrorReport> {
    secrets::hide_statement(c"snowflake_bridge: update_config");
    let secrets = given_secrets(password, private_key, private_key_passphrase, token);
    let given = given(
        account_identifier,
        warehouse,
        database,
        schema,
        role,
        username,
        secrets,
    );
    Ok(update(given, name, verify, user_id)?)
}

#[pg_extern(volatile, parallel_unsafe)]
fn delete_config(
    name: default!(Option<&str>, "'default'"),
    user_id: default!(Option<&str>, "NULL"),
) -> Result<(), ErrorReport> {
    let owner = Owner::acting_for(user_id)?;
    Ok(as_extension_owner(|| {
        configs::delete(&owner, name.unwrap_or(DEFAULT_NAME))
    })?)
}

#[pg_extern(stable, parallel_unsafe)]
fn get_config(
    name: default!(Option<&str>, "NULL"),
    user_id: default!(Option<&str>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(id, pgrx::Uuid),
            name!(name, String),
            name!(account_identifier, String),
            name!(warehouse, Option<String>),
            name!(database, Option<String>),
            name!(schema, Option<String>),
            name!(role, Option<String>),
            name!(username, String),
            name!(auth_method, String),
            name!(is_active, bool),
            name!(last_tested_at, Option<TimestampWithTimeZone>),
            name!(last_test_error, Option<String>),
            name!(created_at, TimestampWithTimeZone),
            name!(updated_at, TimestampWithTimeZone),
        ),
    >,
    ErrorReport,
> {
    let owner = Owner::acting_for(user_id)?;
    let found = as_extension_owner(|| configs::list(&owner, name))?;
    Ok(TableIterator::new(found.into_iter().map(|config| {
        (
            pgrx::Uuid::from_bytes(*config.id.as_bytes()),
            config.name,
            config.account_identifier,
            config.warehouse,
            config.database,
            config.schema,
            config.role,
            config.username,
            config.auth_method,
            config.is_active,
            config.last_tested_at,
            config.last_test_error,
            config.created_at,
            config.updated_at,
        )
    })))
}

#[pg_extern(stable, parallel_unsafe)]
fn public_key(
    name: default!(Option<&str>, "'default'"),
    user_id: default!(Option<&str>, "NULL"),
) -> Result<String, ErrorReport> {
    let owner = Owner::acting_for(user_id)?;
    Ok(as_extension_owner(|| {
        configs::require(&owner, name)?.public_key()
    })?)
}

/// Tests, then saves: a configuration that was saved has worked, unless the caller chose not to know.
fn create(
    given: Given,
    name: Option<&str>,
    verify: Option<bool>,
    user_id: Option<&str>,
) -> Result<pgrx::Uuid> {
    let owner = Owner::acting_for(user_id)?;
    let name = configs::config_name(name)?;
    let draft = given.complete()?;
    let settings = draft.settings(&net::limits()?.allowed_hosts)?;
    as_extension_owner(|| configs::require_free(&owner, &name).and(configs::require_keys()))?;
    let verify = verify.unwrap_or(true);
    if verify {
        probe::probe(settings).map_err(|error| draft.with_cure(error))?;
    }
    let id = as_extension_owner(|| configs::insert(&owner, &name, &draft, verify))?;
    Ok(pgrx::Uuid::from_bytes(*id.as_bytes()))
}

/// As [`create`]: what was there stays until its replacement has worked.
fn update(
    given: Given,
    name: Option<&str>,
    verify: Option<bool>,
    user_id: Option<&str>,
) -> Result<()> {
    let owner = Owner::acting_for(user_id)?;
    let hosts = net::limits()?.allowed_hosts;
    let (stored, draft) = as_extension_owner(|| {
        let stored = configs::require(&owner, name)?;
        configs::require_keys()?;
        let draft = stored.revised(given, &hosts)?;
        Ok((stored, draft))
    })?;
    let settings = draft.settings(&hosts)?;
    let verify = verify.unwrap_or(true);
    if verify {
        probe::probe(settings).map_err(|error| draft.with_cure(error))?;
    }
    as_extension_owner(|| configs::update(&stored, &draft, verify))?;
    registry::wake_at_commit(Wake::Worker);
    Ok(())
}

fn given(
    account_identifier: Option<&str>,
    warehouse: Option<&str>,
    database: Option<&str>,
    schema: Option<&str>,
    role: Option<&str>,
    username: Option<&str>,
    secrets: GivenSecrets,
) -> Given {
    Given {
        account_identifier: account_identifier.map(str::to_owned),
        warehouse: warehouse.map(str::to_owned),
        database: database.map(str::to_owned),
        schema: schema.map(str::to_owned),
        role: role.map(str::to_owned),
        username: username.map(str::to_owned),
        secrets,
    }
}

fn given_secrets(
    password: Option<&str>,
    private_key: Option<&str>,
    private_key_passphrase: Option<&str>,
    token: Option<&str>,
) -> GivenSecrets {
    GivenSecrets {
        password: password.map(SecretString::from),
        private_key: private_key.map(SecretString::from),
        private_key_passphrase: private_key_passphrase.map(SecretString::from),
        token: token.map(SecretString::from),
    }
}
